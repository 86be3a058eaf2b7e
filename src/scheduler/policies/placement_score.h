// How bad a distribution of work over instances is, in KV tokens of step time, and how much worse a
// placement makes it. A step takes as long as its slowest instance; but requests come and go, so
// that the second fullest of today is the fullest of tomorrow: a high power mean over instances
// stands for the maximum. Built from a view, follows its loads, is asked about many placements.
// The score depends on the loads alone, to the last bit, not on the way they came about. One
// thread.
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
  explicit PlacementScore(const PlacementCosts& costs) : costs_(costs) {}
  PlacementScore(const ClusterView& view, const PlacementCosts& costs) : costs_(costs) {
    rebuild(view);
  }

  void rebuild(const ClusterView& view);
  // The load of `instance` is another. Only after `rebuild`, with as many instances.
  void update(const ClusterView& view, InstanceId instance);

  double level(InstanceId instance) const { return levels_[static_cast<size_t>(instance)]; }
  // Of the view with the work added; lower is better. At most one entry per instance.
  double with(std::span<const AddedWork> added) const;
  // By how much the powers of levels may grow for a score of at most `score` with one row more on
  // an instance that has `num_rows`, and by how much they grow at least when these instances are
  // brought to `level_sum` together.
  double most_growth(double score, int32_t num_rows) const;
  double least_growth(std::span<const InstanceId> instances, double level_sum) const;
  // Whether a step with the work takes longer than PlacementCosts::budget allows. Never when no
  // sequence runs.
  bool is_over_budget(std::span<const AddedWork> added) const;

 private:
  // Of neighbouring instances, in powers.
  struct Sums {
    double level = 0.0;
    double rows = 0.0;
  };

  double added_level(const AddedWork& work) const;
  double level_power(double level) const;
  double row_power(int32_t num_rows) const;
  double of(double level_powers, double row_powers) const;
  double row_cost(double row_powers) const;
  double num_instances() const { return static_cast<double>(levels_.size()); }
  void set(InstanceId instance);
  void add_up(size_t chunk);
  void add_up_chunks();

  ClusterView view_{};
  const PlacementCosts& costs_;
  std::vector<double> levels_;        // [num_instances]
  std::vector<double> level_powers_;  // [num_instances]
  std::vector<double> row_powers_;    // [num_instances]
  std::vector<Sums> chunks_;          // of so many instances each
  Sums all_;
  // Powers of two: what is divided by them is not rounded, and so does not depend on them.
  double level_scale_ = 1.0;
  double row_scale_ = 1.0;
};

}  // namespace nanocp::scheduler
