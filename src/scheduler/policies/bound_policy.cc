#include "scheduler/policies/bound_policy.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/random.h"
#include "scheduler/policies/instance_order.h"

namespace nanocp::scheduler {

namespace {

bool has_room(const InstanceLoad& load, const RequestShape& shape) {
  return load.num_free_blocks >= shape.num_new_blocks && load.can_bind();
}

// A pool of this size holds the request in the end.
bool is_large_enough(const InstanceLoad& load, const RequestShape& shape) {
  return load.num_blocks >= shape.max_blocks;
}

// What the router goes by; lower is better. Routers that go by chance or by turns take the one with
// fewest requests of those that they choose from.
double key_of(Router router, const InstanceLoad& load) {
  switch (router) {
    case Router::kLeastKv:
      return static_cast<double>(load.num_used_blocks());
    case Router::kAnyInstance:
      return -static_cast<double>(load.num_free_blocks);
    case Router::kRoundRobin:
    case Router::kPowerOfTwo:
    case Router::kLeastRequests:
      break;
  }
  return load.num_sequences;
}

class BoundAdmission final : public AdmissionIndex {
 public:
  explicit BoundAdmission(Router router) : router_(router) {}

  void rebuild(const ClusterView& view) override {
    order_.rebuild(view, [&](InstanceId i) { return key_of(router_, view.at(i)); });
  }
  void update(const ClusterView& view, InstanceId instance) override {
    order_.update(view, instance, key_of(router_, view.at(instance)));
  }
  std::optional<AdmissionDecision> plan(const ClusterView& view,
                                        const RequestShape& shape) override;

 private:
  InstanceId choose(const ClusterView& view, const RequestShape& shape) const;
  InstanceId next_in_turn(const ClusterView& view, const RequestShape& shape) const;
  InstanceId best_of_two(const ClusterView& view, const RequestShape& shape) const;
  InstanceId first_in_order(const ClusterView& view, const RequestShape& shape) const;

  Router router_;
  InstanceOrder order_;  // by key
};

// One that comes back with a prefix goes where that is.
std::optional<AdmissionDecision> BoundAdmission::plan(const ClusterView& view,
                                                      const RequestShape& shape) {
  const InstanceId holder = shape.placement->tail_holder();
  const InstanceId chosen = holder != kNoInstance ? holder : choose(view, shape);
  if (chosen == kNoInstance || !has_room(view.at(chosen), shape)) return std::nullopt;
  AdmissionDecision decision{.binding = chosen, .spans = {}};
  if (shape.num_new_blocks > 0) decision.spans.push_back({chosen, shape.num_new_blocks});
  return decision;
}

InstanceId BoundAdmission::choose(const ClusterView& view, const RequestShape& shape) const {
  switch (router_) {
    case Router::kRoundRobin:
      return next_in_turn(view, shape);
    case Router::kPowerOfTwo:
      return best_of_two(view, shape);
    case Router::kLeastRequests:
    case Router::kLeastKv:
    case Router::kAnyInstance:
      break;
  }
  return first_in_order(view, shape);
}

InstanceId BoundAdmission::next_in_turn(const ClusterView& view, const RequestShape& shape) const {
  const auto count = static_cast<uint64_t>(view.num_instances());
  for (uint64_t k = 0; k < count; ++k) {
    const auto i = static_cast<InstanceId>((view.num_admissions + k) % count);
    if (is_large_enough(view.at(i), shape)) return i;
  }
  return kNoInstance;
}

// A drawn instance that is too small for the request stands for all that are not.
InstanceId BoundAdmission::best_of_two(const ClusterView& view, const RequestShape& shape) const {
  const auto count = static_cast<uint64_t>(view.num_instances());
  InstanceId best = kNoInstance;
  for (uint64_t draw = 0; draw < 2; ++draw) {
    const auto drawn = static_cast<InstanceId>(counter_random(view.num_admissions, draw) % count);
    if (!is_large_enough(view.at(drawn), shape)) return first_in_order(view, shape);
    const auto rank = [&](InstanceId i) { return std::pair(view.at(i).num_sequences, i); };
    if (best == kNoInstance || rank(drawn) < rank(best)) best = drawn;
  }
  return best;
}

InstanceId BoundAdmission::first_in_order(const ClusterView& view,
                                          const RequestShape& shape) const {
  for (const InstanceOrder::Place& place : order_.places()) {
    const InstanceLoad& load = view.at(place.instance);
    if (!is_large_enough(load, shape)) continue;
    if (router_ != Router::kAnyInstance || has_room(load, shape)) return place.instance;
    if (load.num_free_blocks < shape.num_new_blocks) break;  // nor have those behind it
  }
  return kNoInstance;
}

}  // namespace

std::optional<AdmissionDecision> BoundPolicy::plan_admission(const ClusterView& view,
                                                             const RequestShape& shape) const {
  BoundAdmission admission(router_);
  admission.rebuild(view);
  return admission.plan(view, shape);
}

std::unique_ptr<AdmissionIndex> BoundPolicy::make_admission_index() const {
  return std::make_unique<BoundAdmission>(router_);
}

int64_t BoundPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                        const RequestShape& /*shape*/) const {
  return std::reduce(capacities.begin(), capacities.end(), int64_t{0},
                     [](int64_t a, int64_t b) { return std::max(a, b); });
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
