// `nanocp verify`: runs the cases of a golden.json through the engine and tells how far off it is.
// Called once by main before parsing; one thread.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand to `app`. When it runs, `exit_code` is set: 0 when all cases pass, else 1.
// Requires: `app` and `exit_code` live until parsing has ended.
void add_verify_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
