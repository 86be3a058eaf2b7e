// `nanocp calibrate`: measures the constants of the scheduler's cost model and writes a profile.
//
// The profile is one JSON document: device, model, num_instances, block_size, num_layers, date
// (UTC), command, machine (host's system and cores), constants (name -> value, unit, source
// "measured", num_points, relative_error, is_determined) and points (what was fitted: rows, KV
// tokens, bytes and us per phase of one instance and step). relative_error is the root mean square
// of the fit's residuals relative to the measured values (for route_*: to their mean). A constant
// whose best value would be negative is 0.
#pragma once

#include <CLI/CLI.hpp>

namespace nanocp::apps {

// Adds the subcommand; its exit code goes to `exit_code`.
void add_calibrate_command(CLI::App& app, int& exit_code);

}  // namespace nanocp::apps
