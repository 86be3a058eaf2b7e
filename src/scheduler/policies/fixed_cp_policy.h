// `uniform_cp` (every request over `degree` instances, evenly) and `threshold_cp` (only requests
// whose prompt is longer than a threshold, the others stay on one instance). Stateless; any thread.
#pragma once

#include <string>

#include "scheduler/policy.h"

namespace nanocp::scheduler {

class FixedCpPolicy final : public Policy {
 public:
  struct Rule {
    std::string name;
    int32_t degree;            // of long requests, 1 .. num_instances
    int64_t threshold_tokens;  // longer prompts are long requests; -1: all are
  };
  explicit FixedCpPolicy(Rule rule) : rule_(std::move(rule)) {}

  std::string_view name() const override { return rule_.name; }
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const RequestShape& shape) const override;
  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override;
  std::optional<InstanceId> plan_growth(const ClusterView& view,
                                        const RequestShape& shape) const override;
  bool permits_growth(const ClusterView& view, const RequestShape& shape,
                      InstanceId instance) const override;
  InstanceId plan_binding(const ClusterView& view, const BindingQuery& query) const override;
  BindingMoves binding_moves() const override { return BindingMoves::kNone; }

 private:
  int32_t degree_of(const RequestShape& shape) const;
  std::vector<InstanceId> choose_holders(const ClusterView& view, const RequestShape& shape) const;
  std::vector<InstanceId> choose_among(const ClusterView& view, const RequestShape& shape,
                                       std::vector<InstanceId> candidates) const;

  Rule rule_;
};

}  // namespace nanocp::scheduler
