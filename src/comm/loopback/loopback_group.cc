#include "comm/loopback/loopback_group.h"

#include "comm/loopback/loopback_expert_dispatcher.h"
#include "comm/loopback/loopback_shard_exchange.h"

namespace nanocp::comm {

LoopbackGroup::LoopbackGroup(const ExchangeShape& shape, int64_t timeout_us)
    : shape_(shape),
      room_(shape.num_instances, timeout_us),
      kv_({"new K/V", shape.num_instances, shape.max_rows, shape.kv_values}, room_),
      query_({"query", shape.num_instances, shape.max_rows, shape.query_values}, room_),
      partial_({"partial output", shape.num_instances, shape.max_rows,
                shape.partial_values + shape.lse_values},
               room_),
      dispatch_(
          {"dispatch", shape.num_instances, shape.max_rows, shape.hidden_values + 2 * shape.topk},
          room_),
      combine_({"combine", shape.num_instances, shape.max_rows, shape.hidden_values}, room_) {}

std::unique_ptr<ShardExchange> LoopbackGroup::make_shard_exchange(InstanceId instance) {
  return std::make_unique<LoopbackShardExchange>(*this, instance);
}

std::unique_ptr<ExpertDispatcher> LoopbackGroup::make_expert_dispatcher(InstanceId instance) {
  return std::make_unique<LoopbackExpertDispatcher>(*this, instance);
}

}  // namespace nanocp::comm
