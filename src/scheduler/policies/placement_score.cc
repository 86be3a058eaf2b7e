#include "scheduler/policies/placement_score.h"

#include <algorithm>
#include <cmath>

namespace nanocp::scheduler {
namespace {

double route_level(const RouteCount& routes, const PlacementCosts& costs) {
  double level = 0.0;
  if (routes.near_queries + routes.near_partials > 0) {
    level += costs.near_split + costs.near_query * routes.near_queries +
             costs.near_partial * routes.near_partials;
  }
  if (routes.far_queries + routes.far_partials > 0) {
    level += costs.far_split + costs.far_query * routes.far_queries +
             costs.far_partial * routes.far_partials;
  }
  return level;
}

double power(double value) {
  const double squared = value * value;
  const double fourth = squared * squared;
  const double eighth = fourth * fourth;
  return eighth * eighth;
}

// By square roots: those are the same on every machine, powers are not.
double root(double value) {
  return std::sqrt(std::sqrt(std::sqrt(std::sqrt(value))));
}

}  // namespace

double level_of(const InstanceLoad& load, int32_t block_size, const PlacementCosts& costs) {
  return static_cast<double>(load.num_used_blocks() * block_size) + costs.row * load.num_sequences +
         route_level(load.routes, costs);
}

PlacementScore::PlacementScore(const ClusterView& view, const PlacementCosts& costs)
    : view_(view), costs_(costs) {
  levels_.reserve(view.instances.size());
  int32_t most_rows = 1;
  for (const InstanceLoad& load : view.instances) {
    levels_.push_back(level_of(load, view.block_size, costs));
    level_scale_ = std::max(level_scale_, levels_.back());
    most_rows = std::max(most_rows, load.num_sequences);
  }
  row_scale_ = most_rows;
  for (const double level : levels_) level_sum_ += power(level / level_scale_);
  for (const InstanceLoad& load : view.instances) {
    row_sum_ += power(load.num_sequences / row_scale_);
  }
}

double PlacementScore::added_level(const AddedWork& work) const {
  const RouteCount& old = view_.at(work.instance).routes;
  RouteCount sum = old;
  sum.near_queries += work.routes.near_queries;
  sum.far_queries += work.routes.far_queries;
  sum.near_partials += work.routes.near_partials;
  sum.far_partials += work.routes.far_partials;
  return static_cast<double>(work.num_tokens) + costs_.row * work.num_rows +
         route_level(sum, costs_) - route_level(old, costs_);
}

bool PlacementScore::is_over_budget(std::span<const AddedWork> added) const {
  double highest = 0.0;
  int32_t most_rows = 0;
  int64_t num_rows = 0;
  for (InstanceId i = 0; i < view_.num_instances(); ++i) {
    highest = std::max(highest, level(i));
    most_rows = std::max(most_rows, view_.at(i).num_sequences);
    num_rows += view_.at(i).num_sequences;
  }
  if (num_rows == 0) return false;
  for (const AddedWork& work : added) {
    highest = std::max(highest, level(work.instance) + added_level(work));
    most_rows = std::max(most_rows, view_.at(work.instance).num_sequences + work.num_rows);
    num_rows += work.num_rows;
  }
  return highest + costs_.row_of_fullest * most_rows +
             costs_.row_of_all * static_cast<double>(num_rows) >
         costs_.budget;
}

double PlacementScore::with(std::span<const AddedWork> added) const {
  double level_sum = level_sum_;
  double row_sum = row_sum_;
  for (const AddedWork& work : added) {
    const double old = level(work.instance);
    level_sum += power((old + added_level(work)) / level_scale_) - power(old / level_scale_);
    const int32_t rows = view_.at(work.instance).num_sequences;
    if (work.num_rows > 0) {
      row_sum += power((rows + work.num_rows) / row_scale_) - power(rows / row_scale_);
    }
  }
  const double num_instances = view_.num_instances();
  return level_scale_ * root(std::max(0.0, level_sum) / num_instances) +
         costs_.row_of_fullest * row_scale_ * root(std::max(0.0, row_sum) / num_instances);
}

}  // namespace nanocp::scheduler
