#include "scheduler/policies/placement_score.h"

#include <algorithm>
#include <cmath>

namespace nanocp::scheduler {
namespace {

constexpr size_t kChunk = 16;  // instances whose sum is added up anew when one of them changes

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

double power_of_two_above(double value) {
  int exponent = 0;
  std::frexp(value, &exponent);
  return std::ldexp(1.0, exponent);
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

double PlacementScore::level_power(double level) const {
  return power(level / level_scale_);
}

double PlacementScore::row_power(int32_t num_rows) const {
  return power(num_rows / row_scale_);
}

void PlacementScore::rebuild(const ClusterView& view) {
  view_ = view;
  const size_t num_instances = view.instances.size();
  levels_.resize(num_instances);
  level_powers_.resize(num_instances);
  row_powers_.resize(num_instances);
  chunks_.resize((num_instances + kChunk - 1) / kChunk);
  double highest = 1.0;
  int32_t most_rows = 1;
  for (const InstanceLoad& load : view.instances) {
    highest = std::max(highest, level_of(load, view.block_size, costs_));
    most_rows = std::max(most_rows, load.num_sequences);
  }
  level_scale_ = power_of_two_above(highest);
  row_scale_ = power_of_two_above(most_rows);
  for (InstanceId i = 0; i < view.num_instances(); ++i) set(i);
  for (size_t chunk = 0; chunk < chunks_.size(); ++chunk) add_up(chunk);
  add_up_chunks();
}

void PlacementScore::update(const ClusterView& view, InstanceId instance) {
  view_ = view;
  set(instance);
  const bool is_above = level(instance) > level_scale_;
  if (is_above || view.at(instance).num_sequences > row_scale_) return rebuild(view);
  add_up(static_cast<size_t>(instance) / kChunk);
  add_up_chunks();
}

void PlacementScore::set(InstanceId instance) {
  const auto i = static_cast<size_t>(instance);
  levels_[i] = level_of(view_.at(instance), view_.block_size, costs_);
  level_powers_[i] = level_power(levels_[i]);
  row_powers_[i] = row_power(view_.at(instance).num_sequences);
}

void PlacementScore::add_up(size_t chunk) {
  chunks_[chunk] = {};
  const size_t end = std::min((chunk + 1) * kChunk, levels_.size());
  for (size_t i = chunk * kChunk; i < end; ++i) {
    chunks_[chunk].level += level_powers_[i];
    chunks_[chunk].rows += row_powers_[i];
  }
}

void PlacementScore::add_up_chunks() {
  all_ = {};
  for (const Sums& sums : chunks_) {
    all_.level += sums.level;
    all_.rows += sums.rows;
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
  double level_change = 0.0;
  double row_change = 0.0;
  for (const AddedWork& work : added) {
    const auto i = static_cast<size_t>(work.instance);
    level_change += level_power(levels_[i] + added_level(work)) - level_powers_[i];
    if (work.num_rows == 0) continue;
    const int32_t num_rows = view_.at(work.instance).num_sequences;
    row_change += row_power(num_rows + work.num_rows) - row_powers_[i];
  }
  return of(all_.level + level_change, all_.rows + row_change);
}

double PlacementScore::of(double level_powers, double row_powers) const {
  return level_scale_ * root(std::max(0.0, level_powers) / num_instances()) + row_cost(row_powers);
}

double PlacementScore::row_cost(double row_powers) const {
  return costs_.row_of_fullest * row_scale_ * root(std::max(0.0, row_powers) / num_instances());
}

double PlacementScore::most_growth(double score, int32_t num_rows) const {
  const double row_change = row_power(num_rows + 1) - row_power(num_rows);
  const double level = std::max(0.0, score - row_cost(all_.rows + row_change));
  return level_power(level) * num_instances() - all_.level;
}

// The sum of powers of levels whose sum is given is least when they are equal.
double PlacementScore::least_growth(std::span<const InstanceId> instances, double level_sum) const {
  const auto count = static_cast<double>(instances.size());
  double growth = count * level_power(level_sum / count);
  for (const InstanceId i : instances) growth -= level_powers_[static_cast<size_t>(i)];
  return growth;
}

}  // namespace nanocp::scheduler
