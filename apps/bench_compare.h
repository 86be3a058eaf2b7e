// `nanocp bench compare`: two results of `nanocp bench serve` against each other.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `bench`; its exit code goes to `exit_code`.
void add_bench_compare_command(CLI::App& bench, int& exit_code);

}  // namespace nanocp::apps
