#include "scheduler/policies/bound_policy.h"

#include <algorithm>

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
    case Router::kLeastRequests:
      return x.num_sequences < y.num_sequences;
    case Router::kLeastKv:
      return x.num_used_blocks() < y.num_used_blocks();
  }
  return false;
}

std::optional<AdmissionDecision> BoundPolicy::plan_admission(const ClusterView& view,
                                                             const RequestShape& shape) const {
  const InstanceId holder = shape.placement->tail_holder();
  InstanceId best = kNoInstance;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    const InstanceLoad& load = view.at(i);
    if (holder != kNoInstance && i != holder) continue;
    if (load.num_blocks < shape.max_blocks || load.num_free_blocks < shape.num_new_blocks) continue;
    if (!load.can_bind()) continue;
    if (best == kNoInstance || prefers(view, i, best)) best = i;
  }
  if (best == kNoInstance) return std::nullopt;
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
