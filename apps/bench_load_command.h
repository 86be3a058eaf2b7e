// `nanocp bench load`: requests over time through the engine itself, policy after policy.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `bench`. Requires: exit_code outlives the parsing.
void add_bench_load_command(CLI::App& bench, int& exit_code);

}  // namespace nanocp::apps
