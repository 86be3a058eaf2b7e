// What the runs of `nanocp simulate` share: costs, memory and load of one model on one cluster.
// Immutable once made; runs on several threads may share it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/simulate_options.h"
#include "base/result.h"
#include "scheduler/policy.h"
#include "sim/adversary.h"
#include "sim/hardware_profile.h"
#include "sim/simulation.h"
#include "sim/workload.h"

namespace nanocp::apps {

struct Cluster {
  std::string model;
  sim::DerivedCosts costs;
  int64_t kv_tokens = 0;     // per instance
  int64_t max_position = 0;  // tokens of the longest request that the model is made for
  std::vector<sim::Arrival> trace;
  std::optional<sim::AdversaryKind> adversary;  // goes before the mixture
  std::unique_ptr<sim::LengthMixture> mixture;  // null: the trace
};

struct SimulatedRun {
  std::string policy;
  double rate_per_s = 0.0;
  uint64_t seed = 1;
  double wall_s = 0.0;  // that the simulation took
  sim::SimulationResult result;
};

// Fails where the model, profile, trace or workload cannot be read, or the weights do not fit.
Result<Cluster> make_cluster(const SimulateOptions& options);

// How long arrivals come at `rate` requests per second: the options' time, or longer where fewer
// requests than they ask for would be measured.
double arrivals_duration_s(const SimulateOptions& options, double rate);

// Where lengths come from: the mixture, or the trace where it is null.
struct LoadLengths {
  const sim::LengthMixture* mixture;
  const std::vector<sim::Arrival>& trace;
};

// The load at `rate` requests per second.
std::vector<sim::Arrival> draw_arrivals(const SimulateOptions& options, const LoadLengths& lengths,
                                        double rate, uint64_t seed);

// The same for the cluster, prompts cut as the options say.
std::vector<sim::Arrival> make_arrivals(const SimulateOptions& options, const Cluster& cluster,
                                        double rate, uint64_t seed);

// What the cluster may sustain, as a first guess: from mean lengths, a bit below what even loads
// would allow.
double estimate_rate(const SimulateOptions& options, const Cluster& cluster);

// Defaults of the policies: the cost model's constants, and what the options say.
scheduler::PolicyOptions policy_options(const SimulateOptions& options, const Cluster& cluster);

// `named` says policy, rate and seed; the answer has the result, too. `progress` is as in
// sim::SimulationOptions, and may be empty.
Result<SimulatedRun> run_one(const SimulateOptions& options, const Cluster& cluster,
                             const SimulatedRun& named,
                             const std::function<bool(double done)>& progress);

}  // namespace nanocp::apps
