#include "scheduler/policies/fixed_cp_policy.h"

#include <algorithm>
#include <functional>

#include "scheduler/policies/level_fill.h"

namespace nanocp::scheduler {
namespace {

int64_t num_blocks_on(const kvcache::KvPlacement& placement, InstanceId instance) {
  const kvcache::Shard* shard = placement.find_shard(instance);
  return shard == nullptr ? 0 : static_cast<int64_t>(shard->blocks.size());
}

}  // namespace

int32_t FixedCpPolicy::degree_of(const RequestShape& shape) const {
  return shape.num_prompt_tokens > rule_.threshold_tokens ? rule_.degree : 1;
}

// Any `degree` instances of at least this size can hold the request.
int64_t FixedCpPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                          const RequestShape& shape) const {
  std::vector<int64_t> sizes(capacities.begin(), capacities.end());
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  const int32_t degree = degree_of(shape);
  return sizes[static_cast<size_t>(degree) - 1] * degree;
}

// Those that hold something already, then the least loaded of those that are large enough.
std::vector<InstanceId> FixedCpPolicy::choose_holders(const ClusterView& view,
                                                      const RequestShape& shape) const {
  std::vector<InstanceId> order;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (permits_growth(view, shape, i)) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](InstanceId a, InstanceId b) {
    const bool a_holds = num_blocks_on(*shape.placement, a) > 0;
    const bool b_holds = num_blocks_on(*shape.placement, b) > 0;
    if (a_holds != b_holds) return a_holds;
    return view.at(a).num_free_blocks > view.at(b).num_free_blocks;
  });
  const auto degree = static_cast<size_t>(degree_of(shape));
  if (order.size() > degree) order.resize(degree);
  return order;
}

std::optional<AdmissionDecision> FixedCpPolicy::plan_admission(const ClusterView& view,
                                                               const RequestShape& shape) const {
  const std::vector<InstanceId> holders = choose_holders(view, shape);
  std::vector<FillTarget> targets;
  targets.reserve(holders.size());
  for (const InstanceId holder : holders) {
    targets.push_back({num_blocks_on(*shape.placement, holder), view.at(holder).num_free_blocks});
  }
  const auto amounts = level_fill(targets, shape.num_new_blocks);
  if (!amounts) return std::nullopt;

  AdmissionDecision decision;
  for (size_t i = 0; i < holders.size(); ++i) {
    const InstanceId holder = holders[i];
    if ((*amounts)[i] > 0) decision.spans.push_back({holder, (*amounts)[i]});
    if ((*amounts)[i] + targets[i].level == 0 || !view.at(holder).can_bind()) continue;
    const bool is_better = decision.binding == kNoInstance ||
                           view.at(holder).num_sequences < view.at(decision.binding).num_sequences;
    if (is_better) decision.binding = holder;
  }
  if (decision.binding == kNoInstance) return std::nullopt;
  return decision;
}

// Keeps shards even: the permitted instance with the fewest of the request's blocks.
std::optional<InstanceId> FixedCpPolicy::plan_growth(const ClusterView& view,
                                                     const RequestShape& shape) const {
  std::optional<InstanceId> best;
  int64_t fewest = 0;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks == 0 || !permits_growth(view, shape, i)) continue;
    const int64_t held = num_blocks_on(*shape.placement, i);
    const bool is_better =
        !best || held < fewest ||
        (held == fewest && view.at(i).num_free_blocks > view.at(*best).num_free_blocks);
    if (!is_better) continue;
    best = i;
    fewest = held;
  }
  return best;
}

bool FixedCpPolicy::permits_growth(const ClusterView& view, const RequestShape& shape,
                                   InstanceId instance) const {
  if (num_blocks_on(*shape.placement, instance) > 0) return true;
  const int64_t degree = degree_of(shape);
  const int64_t share = (shape.max_blocks + degree - 1) / degree;
  return shape.placement->degree() < degree && view.at(instance).num_blocks >= share;
}

InstanceId FixedCpPolicy::plan_binding(const ClusterView& /*view*/,
                                       const BindingQuery& query) const {
  return query.current;
}

}  // namespace nanocp::scheduler
