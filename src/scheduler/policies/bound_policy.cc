#include "scheduler/policies/bound_policy.h"

#include <algorithm>

#include "base/random.h"

namespace nanocp::scheduler {

int64_t BoundPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                        const RequestShape& /*shape*/) const {
  return *std::max_element(capacities.begin(), capacities.end());
}

// True when the router takes `a` rather than `b`; lower numbers win ties.
bool BoundPolicy::prefers(const ClusterView& view, InstanceId a, InstanceId b) const {
  const InstanceLoad& x = view.at(a);
  const InstanceLoad& y = view.at(b);
  switch (router_) {
    case Router::kRoundRobin: {
      const auto count = static_cast<uint64_t>(view.num_instances());
      const uint64_t start = view.num_admissions % count;
      return (static_cast<uint64_t>(a) + count - start) % count <
             (static_cast<uint64_t>(b) + count - start) % count;
    }
    case Router::kPowerOfTwo:
    case Router::kLeastRequests:
      return x.num_sequences < y.num_sequences;
    case Router::kLeastKv:
      return x.num_used_blocks() < y.num_used_blocks();
    case Router::kAnyInstance:
      return x.num_free_blocks > y.num_free_blocks;
  }
  return false;
}

namespace {

bool has_room(const InstanceLoad& load, const RequestShape& shape) {
  return load.num_free_blocks >= shape.num_new_blocks && load.can_bind();
}

}  // namespace

// Instances that the router chooses from.
bool BoundPolicy::is_candidate(const ClusterView& view, const RequestShape& shape,
                               InstanceId instance) const {
  const InstanceLoad& load = view.at(instance);
  const InstanceId holder = shape.placement->tail_holder();
  if (holder != kNoInstance) return instance == holder;
  if (load.num_blocks < shape.max_blocks) return false;
  if (router_ == Router::kAnyInstance) return has_room(load, shape);
  if (router_ != Router::kPowerOfTwo) return true;
  const auto count = static_cast<uint64_t>(view.num_instances());
  for (uint64_t draw = 0; draw < 2; ++draw) {
    const uint64_t drawn = counter_random(view.num_admissions, draw) % count;
    // A drawn instance that is too small for the request stands for all that are not.
    const bool fits = view.at(static_cast<InstanceId>(drawn)).num_blocks >= shape.max_blocks;
    if (!fits || drawn == static_cast<uint64_t>(instance)) return true;
  }
  return false;
}

std::optional<AdmissionDecision> BoundPolicy::plan_admission(const ClusterView& view,
                                                             const RequestShape& shape) const {
  InstanceId best = kNoInstance;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (!is_candidate(view, shape, i)) continue;
    if (best == kNoInstance || prefers(view, i, best)) best = i;
  }
  if (best == kNoInstance || !has_room(view.at(best), shape)) return std::nullopt;
  AdmissionDecision decision{.binding = best, .spans = {}};
  if (shape.num_new_blocks > 0) decision.spans.push_back({best, shape.num_new_blocks});
  return decision;
}

std::optional<InstanceId> BoundPolicy::plan_growth(const ClusterView& /*view*/,
                                                   const RequestShape& shape) const {
  return shape.placement->tail_holder();
}

bool BoundPolicy::permits_growth(const ClusterView& /*view*/, const RequestShape& shape,
                                 InstanceId instance) const {
  return instance == shape.placement->tail_holder();
}

InstanceId BoundPolicy::plan_binding(const ClusterView& /*view*/, const BindingQuery& query) const {
  return query.current;
}

}  // namespace nanocp::scheduler
