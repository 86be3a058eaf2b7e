// The fewest GPUs that sustain a rate, for each policy, and what fits on them: `nanocp simulate
// --plan`. Runs simulations on threads of its own; the plan does not depend on how many.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/simulate_cluster.h"
#include "apps/simulate_options.h"
#include "base/result.h"

namespace nanocp::apps {

// What one policy needs.
struct PolicyNeed {
  std::string policy;
  int num_gpus = 0;               // 0: none of the numbers to choose from will do
  SimulatedRun run;               // with num_gpus, of the seed with the highest P99 TPOT
  int num_gpus_missed = 0;        // the largest number below; 0: none
  std::string missed;             // the objective that is missed there
  int64_t longest_tokens = 0;     // of a request: prompt and output together
  int64_t longest_kv_tokens = 0;  // the same by KV memory alone, whatever the model is made for
};

struct CapacityPlan {
  std::string model;
  double rate_per_s = 0.0;
  std::vector<int> gpus;          // numbers that hold the weights, rising
  std::vector<PolicyNeed> needs;  // by policy, as in the options
  int best = -1;                  // of `needs`: fewest GPUs, then lowest P99 TPOT; -1: none will do
  double max_rate_per_s = 0.0;    // of the best on its GPUs, over all seeds
};

// Requires: one rate.
Result<CapacityPlan> plan_capacity(const SimulateOptions& options);

void print_plan(const SimulateOptions& options, const CapacityPlan& plan);
Status write_plan_json(const SimulateOptions& options, const CapacityPlan& plan);

}  // namespace nanocp::apps
