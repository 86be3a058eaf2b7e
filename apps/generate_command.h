// `nanocp generate`: answers prompts with a model, and shows where each request ran.
// Called once by main before parsing; one thread.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `app`. When it runs, `exit_code` is set.
// Requires: `app` and `exit_code` live until parsing has ended.
void add_generate_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
