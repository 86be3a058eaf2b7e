// What `nanocp simulate` prints and writes.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/simulate_options.h"
#include "base/result.h"
#include "sim/hardware_profile.h"
#include "sim/simulation.h"

namespace nanocp::apps {

struct SimulatedRun {
  std::string policy;
  double rate_per_s = 0.0;
  uint64_t seed = 1;
  double wall_s = 0.0;  // that the simulation took
  sim::SimulationResult result;
};

struct SimulatedCluster {
  std::string model;
  int64_t kv_tokens = 0;  // per instance
  sim::DerivedCosts costs;
};

void print_run_header();
void print_run(const SimulatedRun& run, const sim::Objectives& objectives);
// All that a run's result says but its records.
nlohmann::json simulated_run_json(const SimulatedRun& run);
// The model, machine, load and objectives that runs share.
nlohmann::json simulation_json(const SimulateOptions& options, const SimulatedCluster& cluster);
// The files that the options ask for, of such a document with `runs` or `rates`.
Status write_simulation(const SimulateOptions& options, const nlohmann::json& document);
Status write_runs(const SimulateOptions& options, const SimulatedCluster& cluster,
                  const std::vector<SimulatedRun>& runs);

}  // namespace nanocp::apps
