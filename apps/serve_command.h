// `nanocp serve`: an OpenAI-compatible HTTP server.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Requires: `exit_code` outlives the parsing.
void add_serve_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
