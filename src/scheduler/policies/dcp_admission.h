// Where `dcp` puts a request: candidates are each instance alone, and in each domain of fast links
// the 2, 3, ... lowest ones; the one whose predicted step time (PlacementScore) is lowest decides
// degree, holders, split and binding. Follows the loads, so that an answer rates few of the
// placements there are: of instances those that no lower one beats in rows, of domains those whose
// lowest conceivable score is below the best. One thread.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "scheduler/policies/holder_limit.h"
#include "scheduler/policies/instance_order.h"
#include "scheduler/policies/placement_score.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

class DcpAdmission final : public AdmissionIndex {
 public:
  // Costs and parts outlive it; what the others mean: see DcpPolicy.
  DcpAdmission(const PlacementCosts& costs, const DcpParts& parts, int64_t min_tokens_per_shard,
               int32_t max_degree)
      : costs_(costs),
        parts_(parts),
        min_tokens_per_shard_(min_tokens_per_shard),
        max_degree_(max_degree),
        score_(costs) {}

  void rebuild(const ClusterView& view) override;
  void update(const ClusterView& view, InstanceId instance) override;
  std::optional<AdmissionDecision> plan(const ClusterView& view,
                                        const RequestShape& shape) override;

 private:
  // A placement and how good it is; no spans: there is none.
  struct Candidate {
    AdmissionDecision decision;
    double score = 0.0;
    double most_growth = 0.0;  // of powers of levels, for a score as good
    bool exists() const { return !decision.spans.empty(); }
  };

  int64_t blocks_per_shard() const;
  int64_t domain_capacity() const;
  std::vector<InstanceId> roomiest(std::span<const InstanceId> instances) const;
  Candidate best_new(const RequestShape& shape);
  Candidate best_local(int64_t num_blocks) const;
  void consider_domain(std::span<const InstanceId> domain, int64_t num_blocks,
                       Candidate& best) const;
  void consider_holders(std::span<const InstanceId> holders, int64_t num_blocks,
                        Candidate& best) const;
  void set_best(Candidate candidate, Candidate& best) const;
  double least_growth(std::span<const InstanceId> holders, int64_t num_blocks) const;
  Candidate over_domains(int64_t num_blocks);
  Candidate continued(const RequestShape& shape);
  void sort_by_domain(const ClusterView& view);
  std::vector<BlockSpan> fill(std::span<const InstanceId> holders, int64_t num_blocks) const;
  std::vector<AddedWork> work_of(const AdmissionDecision& decision) const;
  InstanceId choose_binding(const kvcache::KvPlacement* placement,
                            std::span<const BlockSpan> spans) const;

  const PlacementCosts& costs_;
  const DcpParts& parts_;
  int64_t min_tokens_per_shard_;
  int32_t max_degree_;
  ClusterView view_{};
  HolderLimit limit_;  // of the request in question
  PlacementScore score_;
  InstanceOrder order_;                           // by level
  std::vector<std::vector<InstanceId>> domains_;  // scratch
  int32_t fewest_rows_ = 0;                       // scratch
};

}  // namespace nanocp::scheduler
