// How bad a distribution of work over instances is, in KV tokens of step time, and how much worse a
// placement makes it. A step takes as long as its slowest instance; but requests come and go, so
// that the second fullest of today is the fullest of tomorrow: a high power mean over instances
// stands for the maximum. Built from one view, then asked about many placements; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/policy.h"

namespace nanocp::scheduler {

// KV tokens that one instance attends to, with all that costs time beside them.
double level_of(const InstanceLoad& load, int32_t block_size, const PlacementCosts& costs);

// What a placement adds to one instance.
struct AddedWork {
  InstanceId instance;
  int64_t num_tokens;
  int32_t num_rows;
  RouteCount routes = {};
};

class PlacementScore {
 public:
  PlacementScore(const ClusterView& view, const PlacementCosts& costs);

  double level(InstanceId instance) const { return levels_[static_cast<size_t>(instance)]; }
  // Of the view with the work added; lower is better. At most one entry per instance.
  double with(std::span<const AddedWork> added) const;
  // Whether a step with the work takes longer than PlacementCosts::budget allows. Never when no
  // sequence runs.
  bool is_over_budget(std::span<const AddedWork> added) const;

 private:
  double added_level(const AddedWork& work) const;

  const ClusterView view_;
  const PlacementCosts& costs_;
  std::vector<double> levels_;  // [num_instances]
  double level_scale_ = 1.0;
  double row_scale_ = 1.0;
  double level_sum_ = 0.0;  // of powers
  double row_sum_ = 0.0;
};

}  // namespace nanocp::scheduler
