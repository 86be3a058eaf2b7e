// What no machine can do, as a mark to measure policies against: all K/V is spread evenly over all
// instances, every instance does the mean of all work, and splitting costs nothing. A simulation
// whose policy has this name charges CostModel::ideal_step. The queue and its bypass are those of
// every policy. It is known to the simulator alone: an engine that serves requests cannot be given
// it.
#pragma once

#include <string_view>

#include "scheduler/policy.h"

namespace nanocp::sim {

class OraclePolicy final : public scheduler::Policy {
 public:
  static constexpr std::string_view kName = "oracle";

  std::string_view name() const override { return kName; }
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const scheduler::RequestShape& shape) const override;
  std::optional<scheduler::AdmissionDecision> plan_admission(
      const scheduler::ClusterView& view, const scheduler::RequestShape& shape) const override;
  std::optional<InstanceId> plan_growth(const scheduler::ClusterView& view,
                                        const scheduler::RequestShape& shape) const override;
  bool permits_growth(const scheduler::ClusterView& view, const scheduler::RequestShape& shape,
                      InstanceId instance) const override;
  InstanceId plan_binding(const scheduler::ClusterView& view,
                          const scheduler::BindingQuery& query) const override;
  scheduler::BindingMoves binding_moves() const override { return scheduler::BindingMoves::kNone; }
};

}  // namespace nanocp::sim
