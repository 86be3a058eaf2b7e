// `dcp`: every request gets its own degree. A request is split only when the split lowers the KV
// tokens of the fullest instance by a shard worth having, or when no single instance has room.
// Blocks are water-filled over the chosen holders; the binding goes where fewest rows run.
// Stateless; any thread.
#pragma once

#include "scheduler/policy.h"

namespace nanocp::scheduler {

class DcpPolicy final : public Policy {
 public:
  // Requires: min_tokens_per_shard > 0.
  explicit DcpPolicy(int64_t min_tokens_per_shard) : min_tokens_per_shard_(min_tokens_per_shard) {}

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

 private:
  // Blocks that make a shard worth having; also the imbalance that is put up with.
  int64_t slack_blocks(const ClusterView& view) const;
  std::vector<BlockSpan> plan_spans(const ClusterView& view, const RequestShape& shape) const;
  std::vector<BlockSpan> plan_new_spans(const ClusterView& view, const RequestShape& shape) const;
  std::vector<BlockSpan> plan_more_spans(const ClusterView& view, const RequestShape& shape) const;
  InstanceId choose_local(const ClusterView& view, const RequestShape& shape) const;
  InstanceId choose_admission_binding(const ClusterView& view, const RequestShape& shape,
                                      const std::vector<BlockSpan>& spans) const;

  int64_t min_tokens_per_shard_;
};

}  // namespace nanocp::scheduler
