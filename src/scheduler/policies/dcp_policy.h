// `dcp`: every request gets its own degree, holders, split and binding, those whose predicted step
// time is lowest (PlacementScore). Candidates are each instance alone, and in each domain of fast
// links the 2, 3, ... least loaded ones. Between domains a request is split only when it is too
// large for any. With DcpParts::keeps_budget a request waits while the step that it would bring
// about is predicted to take longer than the objective. Stateless; any thread.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "scheduler/policies/placement_score.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

class DcpPolicy final : public Policy {
 public:
  // Less than `min_tokens_per_shard` is not worth another holder; > 0.
  DcpPolicy(const PlacementCosts& costs, const DcpParts& parts, int64_t min_tokens_per_shard)
      : costs_(costs), parts_(parts), min_tokens_per_shard_(min_tokens_per_shard) {}

  std::string_view name() const override { return "dcp"; }
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const RequestShape& shape) const override;
  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override;
  std::optional<InstanceId> plan_growth(const ClusterView& view,
                                        const RequestShape& shape) const override;
  bool permits_growth(const ClusterView& view, const RequestShape& shape,
                      InstanceId instance) const override;
  InstanceId plan_binding(const ClusterView& view, const BindingQuery& query) const override;
  BindingMoves binding_moves() const override { return BindingMoves::kSplit; }

 private:
  // A placement and how good it is; no spans: there is none.
  struct Candidate {
    AdmissionDecision decision;
    double score = 0.0;
  };

  int64_t blocks_per_shard(const ClusterView& view) const;
  std::vector<BlockSpan> fill(const ClusterView& view, const PlacementScore& score,
                              std::span<const InstanceId> holders, int64_t num_blocks) const;
  Candidate best_local(const ClusterView& view, const PlacementScore& score,
                       int64_t num_blocks) const;
  void consider_domain(const ClusterView& view, const PlacementScore& score,
                       std::span<const InstanceId> domain, int64_t num_blocks,
                       Candidate& best) const;
  Candidate over_domains(const ClusterView& view, const PlacementScore& score,
                         int64_t num_blocks) const;
  Candidate continued(const ClusterView& view, const PlacementScore& score,
                      const RequestShape& shape) const;
  std::vector<AddedWork> work_of(const ClusterView& view, const AdmissionDecision& decision) const;
  void rate(const ClusterView& view, const PlacementScore& score, Candidate& candidate) const;
  InstanceId choose_binding(const ClusterView& view, const PlacementScore& score,
                            const kvcache::KvPlacement* placement,
                            std::span<const BlockSpan> spans) const;

  PlacementCosts costs_;
  DcpParts parts_;
  int64_t min_tokens_per_shard_;
};

}  // namespace nanocp::scheduler
