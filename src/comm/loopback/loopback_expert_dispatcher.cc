#include "comm/loopback/loopback_expert_dispatcher.h"

#include <algorithm>
#include <bit>

namespace nanocp::comm {

LoopbackExpertDispatcher::LoopbackExpertDispatcher(LoopbackGroup& group, InstanceId instance)
    : group_(group),
      instance_(instance),
      num_received_(static_cast<size_t>(group.shape_.num_instances)),
      received_idx_(static_cast<size_t>(group.shape_.num_instances)),
      received_weights_(static_cast<size_t>(group.shape_.num_instances)) {}

// Each row once per destination that owns one of its experts.
void LoopbackExpertDispatcher::fill_sent_rows(const Rows& rows) {
  sent_.reset(group_.shape_.num_instances);
  const auto topk = static_cast<size_t>(group_.shape_.topk);
  for (int32_t row = 0; row < rows.x.rows; ++row) {
    for (const int32_t expert : rows.topk_idx.subspan(static_cast<size_t>(row) * topk, topk)) {
      const InstanceId owner = rows.owner_of_expert[static_cast<size_t>(expert)];
      const auto already = sent_.rows(owner);
      if (already.empty() || already.back() != row) sent_.add(owner, row);
    }
  }
}

void LoopbackExpertDispatcher::push_row(const Rows& rows, int32_t row, tensor::Matrix slots,
                                        int64_t slot) const {
  const auto topk = static_cast<size_t>(group_.shape_.topk);
  float* values = slots.row(slot);
  float* idx = std::copy_n(rows.x.row(row), rows.x.cols, values);
  const size_t first = static_cast<size_t>(row) * topk;
  // The ids travel as bits: a float holds any int32 that is only copied.
  std::copy_n(reinterpret_cast<const char*>(rows.topk_idx.data() + first), topk * sizeof(int32_t),
              reinterpret_cast<char*>(idx));
  std::copy_n(rows.topk_weights.data() + first, topk, idx + topk);
}

Status LoopbackExpertDispatcher::dispatch(const Rows& rows) {
  ++epoch_;
  fill_sent_rows(rows);
  for (InstanceId to = 0; to < group_.shape_.num_instances; ++to) {
    const auto sent = sent_.rows(to);
    const auto count = static_cast<int64_t>(sent.size());
    const tensor::Matrix slots = group_.dispatch_.slots(to, instance_, epoch_, count);
    for (int64_t i = 0; i < count; ++i) push_row(rows, sent[static_cast<size_t>(i)], slots, i);
    group_.dispatch_.post(to, instance_, epoch_, count);
  }
  return ok_status();
}

Result<ExpertDispatcher::Received> LoopbackExpertDispatcher::wait_rows(InstanceId source) {
  NANOCP_ASSIGN_OR_RETURN(const int64_t count, group_.dispatch_.wait(instance_, source, epoch_));
  const auto from = static_cast<size_t>(source);
  const int64_t hidden = group_.shape_.hidden_values;
  const auto topk = static_cast<size_t>(group_.shape_.topk);
  num_received_[from] = count;
  received_idx_[from].resize(static_cast<size_t>(count) * topk);
  received_weights_[from].resize(static_cast<size_t>(count) * topk);
  const tensor::Matrix slots = group_.dispatch_.slots(instance_, source, epoch_, count);
  for (int64_t i = 0; i < count; ++i) {
    const float* idx = slots.row(i) + hidden;
    const size_t first = static_cast<size_t>(i) * topk;
    std::copy_n(reinterpret_cast<const char*>(idx), topk * sizeof(int32_t),
                reinterpret_cast<char*>(received_idx_[from].data() + first));
    std::copy_n(idx + topk, topk, received_weights_[from].data() + first);
  }
  return Received{slots.columns(0, hidden), received_idx_[from], received_weights_[from]};
}

tensor::Matrix LoopbackExpertDispatcher::combine_slots(InstanceId source) {
  return group_.combine_.slots(source, instance_, epoch_,
                               num_received_[static_cast<size_t>(source)]);
}

void LoopbackExpertDispatcher::post_combine(InstanceId source) {
  group_.combine_.post(source, instance_, epoch_, num_received_[static_cast<size_t>(source)]);
}

Status LoopbackExpertDispatcher::combine(tensor::Matrix out) {
  for (InstanceId from = 0; from < group_.shape_.num_instances; ++from) {
    NANOCP_ASSIGN_OR_RETURN(const int64_t count, group_.combine_.wait(instance_, from, epoch_));
    const auto sent = sent_.rows(from);
    NANOCP_CHECK_EQ(count, static_cast<int64_t>(sent.size()));
    const tensor::Matrix slots = group_.combine_.slots(instance_, from, epoch_, count);
    for (int64_t i = 0; i < count; ++i) {
      float* row = out.row(sent[static_cast<size_t>(i)]);
      const float* sum = slots.row(i);
      for (int64_t c = 0; c < out.cols; ++c) row[c] += sum[c];
    }
  }
  return ok_status();
}

}  // namespace nanocp::comm
