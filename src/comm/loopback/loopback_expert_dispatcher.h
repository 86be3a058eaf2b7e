// ExpertDispatcher between threads; see comm/communicator.h for the contract.
#pragma once

#include <vector>

#include "comm/loopback/loopback_group.h"

namespace nanocp::comm {

class LoopbackExpertDispatcher final : public ExpertDispatcher {
 public:
  LoopbackExpertDispatcher(LoopbackGroup& group, InstanceId instance);

  Status dispatch(const Rows& rows) override;
  Result<Received> wait_rows(InstanceId source) override;
  tensor::Matrix combine_slots(InstanceId source) override;
  void post_combine(InstanceId source) override;
  Status combine(tensor::Matrix out) override;

 private:
  void fill_sent_rows(const Rows& rows);
  void push_row(const Rows& rows, int32_t row, tensor::Matrix slots, int64_t slot) const;

  LoopbackGroup& group_;
  const InstanceId instance_;
  uint64_t epoch_ = 0;
  RowTable sent_;                                   // own rows by destination, in slot order
  std::vector<int64_t> num_received_;               // [num_instances]
  std::vector<std::vector<int32_t>> received_idx_;  // [num_instances][count * topk]
  std::vector<std::vector<float>> received_weights_;
};

}  // namespace nanocp::comm
