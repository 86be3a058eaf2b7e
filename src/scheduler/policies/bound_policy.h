// `bound`: a request's KV, rows and growth stay on the one instance that a router picks at
// admission, as in engines with plain data-parallel attention. Where the picked instance has no
// room the request waits for it, except with any_instance, which picks among those with room.
// Stateless; any thread.
#pragma once

#include "scheduler/policy.h"

namespace nanocp::scheduler {

enum class Router {
  kRoundRobin,
  kLeastRequests,
  kLeastKv,
  kPowerOfTwo,   // the one with fewer requests of two drawn by hash (Mitzenmacher, 2001)
  kAnyInstance,  // whichever has room, most free blocks first
};

class BoundPolicy final : public Policy {
 public:
  explicit BoundPolicy(Router router) : router_(router) {}

  std::string_view name() const override { return "bound"; }
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const RequestShape& shape) const override;
  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override;
  std::unique_ptr<AdmissionIndex> make_admission_index() const override;
  std::optional<InstanceId> plan_growth(const ClusterView& view,
                                        const RequestShape& shape) const override;
  bool permits_growth(const ClusterView& view, const RequestShape& shape,
                      InstanceId instance) const override;
  InstanceId plan_binding(const ClusterView& view, const BindingQuery& query) const override;
  // Where the router goes by room.
  bool reserves_growth() const override {
    return router_ == Router::kLeastKv || router_ == Router::kAnyInstance;
  }
  BindingMoves binding_moves() const override { return BindingMoves::kNone; }

 private:
  Router router_;
};

}  // namespace nanocp::scheduler
