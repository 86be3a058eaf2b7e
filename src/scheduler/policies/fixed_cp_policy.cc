#include "scheduler/policies/fixed_cp_policy.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "scheduler/policies/level_fill.h"

namespace nanocp::scheduler {
namespace {

int64_t num_blocks_on(const kvcache::KvPlacement& placement, InstanceId instance) {
  const kvcache::Shard* shard = placement.find_shard(instance);
  return shard == nullptr ? 0 : static_cast<int64_t>(shard->blocks.size());
}

bool has_room(const InstanceLoad& load, const RequestShape& shape) {
  return load.num_free_blocks >= shape.num_new_blocks && load.can_bind();
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

// Those that hold something already, then, for a request that is not split, the one with fewest
// sequences that has room, else those with most room.
std::vector<InstanceId> FixedCpPolicy::choose_among(const ClusterView& view,
                                                    const RequestShape& shape,
                                                    std::vector<InstanceId> candidates) const {
  const auto degree = static_cast<size_t>(degree_of(shape));
  std::stable_sort(candidates.begin(), candidates.end(), [&](InstanceId a, InstanceId b) {
    const bool a_holds = num_blocks_on(*shape.placement, a) > 0;
    const bool b_holds = num_blocks_on(*shape.placement, b) > 0;
    if (a_holds != b_holds) return a_holds;
    if (degree == 1) {
      const bool a_has_room = has_room(view.at(a), shape);
      const bool b_has_room = has_room(view.at(b), shape);
      if (a_has_room != b_has_room) return a_has_room;
      if (view.at(a).num_sequences != view.at(b).num_sequences) {
        return view.at(a).num_sequences < view.at(b).num_sequences;
      }
    }
    return view.at(a).num_free_blocks > view.at(b).num_free_blocks;
  });
  if (candidates.size() > degree) candidates.resize(degree);
  return candidates;
}

// Within one domain of fast links where one is wide enough for the degree: the tail's, or that
// with the most room on its fullest chosen instance.
std::vector<InstanceId> FixedCpPolicy::choose_holders(const ClusterView& view,
                                                      const RequestShape& shape) const {
  std::vector<std::vector<InstanceId>> by_domain(static_cast<size_t>(view.num_domains()));
  std::vector<InstanceId> all;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (!permits_growth(view, shape, i)) continue;
    all.push_back(i);
    by_domain[static_cast<size_t>(view.domain_of(i))].push_back(i);
  }
  const InstanceId tail = shape.placement->tail_holder();
  std::vector<InstanceId> best;
  int64_t best_free = -1;
  for (std::vector<InstanceId>& domain : by_domain) {
    if (degree_of(shape) == 1 || std::ssize(domain) < degree_of(shape)) continue;
    if (tail != kNoInstance && view.domain_of(domain.front()) != view.domain_of(tail)) continue;
    std::vector<InstanceId> chosen = choose_among(view, shape, std::move(domain));
    int64_t least_free = view.at(chosen.front()).num_free_blocks;
    for (const InstanceId i : chosen) {
      least_free = std::min(least_free, view.at(i).num_free_blocks);
    }
    if (least_free <= best_free) continue;
    best_free = least_free;
    best = std::move(chosen);
  }
  return best.empty() ? choose_among(view, shape, std::move(all)) : best;
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
  const InstanceId tail = shape.placement->tail_holder();
  // By distance from the tail, then blocks held, then room.
  const auto rank = [&](InstanceId i) {
    const bool is_far = tail != kNoInstance && view.domain_of(i) != view.domain_of(tail);
    return std::make_tuple(is_far, num_blocks_on(*shape.placement, i), -view.at(i).num_free_blocks);
  };
  std::optional<InstanceId> best;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks == 0 || !permits_growth(view, shape, i)) continue;
    if (!best || rank(i) < rank(*best)) best = i;
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
