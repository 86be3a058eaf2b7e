// `nanocp bench serve`: loads a server of OpenAI's API and measures its answers.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `bench`; its exit code goes to `exit_code`.
void add_bench_serve_command(CLI::App& bench, int& exit_code);

}  // namespace nanocp::apps
