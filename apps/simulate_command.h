// `nanocp simulate`: a load on machines that one need not have, through the production engine and
// scheduler.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

void add_simulate_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
