// `dcp`: every request gets its own degree, holders, split and binding, those whose predicted step
// time is lowest (DcpAdmission). Between domains of fast links a request is split only when it is
// too large for any. With DcpParts::keeps_budget a request waits while the step that it would bring
// about is predicted to take longer than the objective. Stateless; any thread.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "scheduler/policy.h"

namespace nanocp::scheduler {

class DcpPolicy final : public Policy {
 public:
  // Less than `min_tokens_per_shard` is not worth another holder; > 0. `max_degree`: holders of one
  // request; 0: all.
  DcpPolicy(const PlacementCosts& costs, const DcpParts& parts, int64_t min_tokens_per_shard,
            int32_t max_degree)
      : costs_(costs),
        parts_(parts),
        min_tokens_per_shard_(min_tokens_per_shard),
        max_degree_(max_degree) {}

  std::string_view name() const override { return "dcp"; }
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
  BindingMoves binding_moves() const override { return BindingMoves::kSplit; }
  bool reserves_growth() const override { return parts_.reserves_growth; }

 private:
  PlacementCosts costs_;
  DcpParts parts_;
  int64_t min_tokens_per_shard_;
  int32_t max_degree_;
};

}  // namespace nanocp::scheduler
