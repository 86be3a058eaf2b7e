// What `nanocp simulate` prints and writes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/simulate_cluster.h"
#include "apps/simulate_options.h"
#include "base/result.h"
#include "sim/metrics.h"

namespace nanocp::apps {

void print_run_header();
void print_run(const SimulatedRun& run, const sim::Objectives& objectives);
// All that a run's result says but its records.
nlohmann::json simulated_run_json(const SimulatedRun& run);
// The trace's file, or the description of the lengths.
std::string workload_name(const SimulateOptions& options);
// The model, machine, load and objectives that runs share.
nlohmann::json simulation_json(const SimulateOptions& options, const Cluster& cluster);
// The files that the options ask for, of such a document with `runs` or `rates`.
Status write_simulation(const SimulateOptions& options, const nlohmann::json& document);
Status write_runs(const SimulateOptions& options, const Cluster& cluster,
                  const std::vector<SimulatedRun>& runs);

}  // namespace nanocp::apps
