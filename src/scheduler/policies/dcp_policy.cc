#include "scheduler/policies/dcp_policy.h"

#include <algorithm>
#include <tuple>

#include "scheduler/policies/dcp_admission.h"
#include "scheduler/policies/holder_limit.h"

namespace nanocp::scheduler {

int64_t DcpPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                      const RequestShape& /*shape*/) const {
  return most_blocks_within(capacities, max_degree_);
}

std::optional<AdmissionDecision> DcpPolicy::plan_admission(const ClusterView& view,
                                                           const RequestShape& shape) const {
  DcpAdmission admission(costs_, parts_, min_tokens_per_shard_, max_degree_);
  admission.rebuild(view);
  return admission.plan(view, shape);
}

std::unique_ptr<AdmissionIndex> DcpPolicy::make_admission_index() const {
  return std::make_unique<DcpAdmission>(costs_, parts_, min_tokens_per_shard_, max_degree_);
}

// The tail stays where it is unless that instance is full or, for a request worth splitting,
// stands out by more than a shard; then the least used holder takes over that does not. A new
// holder costs routes for the rest of the request's life: only where no holder has a free block.
std::optional<InstanceId> DcpPolicy::plan_growth(const ClusterView& view,
                                                 const RequestShape& shape) const {
  const InstanceId tail = shape.placement->tail_holder();
  const bool is_short = shape.num_tokens < 2 * min_tokens_per_shard_;
  const bool stays = is_short || !parts_.moves_tails;
  if (stays && view.at(tail).num_free_blocks > 0) return tail;
  int64_t used = 0;
  for (const InstanceLoad& load : view.instances) used += load.num_used_blocks();
  const int64_t shard = std::max<int64_t>(1, min_tokens_per_shard_ / view.block_size);
  const int64_t limit = used / view.num_instances() + shard;
  const HolderLimit holders = holder_limit(view, shape.max_blocks, max_degree_);

  // Lower is better: the tail while it does not stand out, holders that do not, the tail, others.
  const auto rank = [&](InstanceId i) {
    const bool is_holder = shape.placement->find_shard(i) != nullptr;
    const bool stands_out = view.at(i).num_used_blocks() > limit;
    const int place = i == tail ? (stands_out ? 2 : 0) : is_holder ? (stands_out ? 3 : 1) : 4;
    const bool is_far = view.domain_of(i) != view.domain_of(tail);
    return std::make_tuple(place, is_far, view.at(i).num_used_blocks());
  };
  std::optional<InstanceId> best;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks == 0 || !holders.permits(view, *shape.placement, i)) continue;
    if (!best || rank(i) < rank(*best)) best = i;
  }
  return best;
}

bool DcpPolicy::permits_growth(const ClusterView& view, const RequestShape& shape,
                               InstanceId instance) const {
  return holder_limit(view, shape.max_blocks, max_degree_)
      .permits(view, *shape.placement, instance);
}

// A local request stays. A split one moves to a holder when that lowers what the two of them cost
// a step, or when its own instance has no row left for it.
InstanceId DcpPolicy::plan_binding(const ClusterView& view, const BindingQuery& query) const {
  const auto shards = query.placement->shards();
  if (shards.size() <= 1 && query.placement->tail_holder() == query.current) return query.current;
  const bool must_move = view.at(query.current).num_rows_left() == 0;
  if (!parts_.moves_bindings && !must_move) return query.current;
  // What the row costs its binding beside K/V, and a holder that is not the binding.
  double query_cost = 0.0;
  for (const kvcache::Shard& shard : shards) {
    if (shard.holder == query.current) continue;
    const bool is_near = view.domain_of(shard.holder) == view.domain_of(query.current);
    query_cost += is_near ? costs_.near_query : costs_.far_query;
  }
  const double moved = costs_.row + query_cost - costs_.near_partial;
  InstanceId best = query.current;
  double best_gain = 0.0;
  const InstanceLoad& home = view.at(query.current);
  const double home_level = level_of(home, view.block_size, costs_);
  for (const kvcache::Shard& shard : shards) {
    const InstanceLoad& load = view.at(shard.holder);
    if (shard.holder == query.current || !load.can_bind()) continue;
    const double level = level_of(load, view.block_size, costs_);
    const double before = std::max(home_level, level) +
                          costs_.row_of_fullest * std::max(home.num_sequences, load.num_sequences);
    const double after =
        std::max(home_level - moved, level + moved) +
        costs_.row_of_fullest * std::max(home.num_sequences - 1, load.num_sequences + 1);
    const double gain = before - after;
    if (gain > best_gain || (must_move && best == query.current)) {
      best_gain = gain;
      best = shard.holder;
    }
  }
  return best;
}

}  // namespace nanocp::scheduler
