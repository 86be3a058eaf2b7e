// ShardExchange between threads; see comm/communicator.h for the contract.
#pragma once

#include "comm/loopback/loopback_group.h"

namespace nanocp::comm {

class LoopbackShardExchange final : public ShardExchange {
 public:
  LoopbackShardExchange(LoopbackGroup& group, InstanceId instance)
      : group_(group), instance_(instance) {}

  Status send(const InstancePlan& plan, tensor::ConstMatrix q, tensor::ConstMatrix kv) override;
  Result<Received> wait_rows(InstanceId source) override;
  Partials return_slots(InstanceId source) override;
  void post_return(InstanceId source) override;
  Result<ConstPartials> wait_return(InstanceId destination) override;

 private:
  int64_t num_received(InstanceId source) const;

  LoopbackGroup& group_;
  const InstanceId instance_;
  const InstancePlan* plan_ = nullptr;  // of the current epoch
  uint64_t epoch_ = 0;
};

}  // namespace nanocp::comm
