// The largest request rate that keeps the objectives, for each policy and seed: `nanocp simulate
// --find-rate`. Runs simulations on threads of its own; what it finds does not depend on how many.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "apps/simulate_cluster.h"
#include "apps/simulate_options.h"
#include "base/result.h"

namespace nanocp::apps {

struct RateTrial {
  double rate_per_s = 0.0;
  std::string missed;  // the objective; empty: all are kept
  double wall_s = 0.0;
};

struct FoundRate {
  std::string policy;
  uint64_t seed = 1;
  double rate_per_s = 0.0;         // 0: no rate keeps the objectives
  double missed_rate_per_s = 0.0;  // the smallest tried that does not
  std::string limit;               // the objective that is missed there
  SimulatedRun at_rate;            // where rate_per_s > 0; else the last run
  std::vector<RateTrial> trials;   // in the order of the search

  double wall_s() const;
};

// For each policy and seed of the options. The first search of a policy starts from --rate-guess or
// an estimate, the next ones from what the seed before gave. `found` is called after each search,
// on any thread, one at a time.
Result<std::vector<FoundRate>> find_rates(const SimulateOptions& options, const Cluster& cluster,
                                          const std::function<void(const FoundRate&)>& found);

void print_rate_header();
void print_rate(const FoundRate& found);
// The files that the options ask for.
Status write_rates(const SimulateOptions& options, const Cluster& cluster,
                   const std::vector<FoundRate>& rates);

}  // namespace nanocp::apps
