// `nanocp inspect`: what a model is and what it needs, from its config alone.
// Called once by main before parsing; one thread.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `app`. When it runs, `exit_code` is set: 0, or 1 after an error.
// Requires: `app` and `exit_code` live until parsing has ended.
void add_inspect_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
