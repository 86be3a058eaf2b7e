// `dcp`: every request gets its own degree. A request is split only when the split lowers the KV
// tokens of the fullest instance by a shard worth having, or when no single instance has room; it
// then stays within a domain of fast links if one has room. Blocks are water-filled over the chosen
// holders; the binding goes where fewest rows run. A request that is not split goes where KV tokens
// and rows together, weighed by what they cost, lift the maxima least. Stateless; any thread.
#pragma once

#include "scheduler/policy.h"

namespace nanocp::scheduler {

class DcpPolicy final : public Policy {
 public:
  // In KV tokens of one instance.
  struct Costs {
    int64_t min_tokens_per_shard;  // less is not worth another holder; > 0
    int64_t tokens_per_split;      // a split must lower the fullest instance by so many
    double tokens_per_row;         // that take as long as one row more
  };
  explicit DcpPolicy(const Costs& costs) : costs_(costs) {}

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
  // Blocks that make a shard worth having; also the imbalance that is put up with.
  int64_t slack_blocks(const ClusterView& view) const;
  std::vector<BlockSpan> plan_spans(const ClusterView& view, const RequestShape& shape) const;
  std::vector<BlockSpan> plan_new_spans(const ClusterView& view, const RequestShape& shape) const;
  std::vector<BlockSpan> plan_more_spans(const ClusterView& view, const RequestShape& shape) const;
  InstanceId choose_local(const ClusterView& view, const RequestShape& shape) const;
  InstanceId choose_admission_binding(const ClusterView& view, const RequestShape& shape,
                                      const std::vector<BlockSpan>& spans) const;

  std::vector<BlockSpan> plan_spans_among(const ClusterView& view, int64_t count,
                                          std::span<const InstanceId> order) const;

  Costs costs_;
};

}  // namespace nanocp::scheduler
