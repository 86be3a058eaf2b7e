// `nanocp bench`: measurements of the engine.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand; its exit code goes to `exit_code`.
void add_bench_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
