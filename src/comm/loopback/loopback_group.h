// The loopback backend: instances are threads of one process and write into one another's slots.
#pragma once

#include <memory>
#include <string>

#include "comm/communicator.h"
#include "comm/loopback/mailbox.h"

namespace nanocp::comm {

// The memory that the instances of a group share. Owned by the runner; outlives its members.
// abort() may be called from any thread, the rest by the owner before the instances start.
class LoopbackGroup {
 public:
  // `timeout_us` bounds every single wait.
  LoopbackGroup(const ExchangeShape& shape, int64_t timeout_us);

  std::unique_ptr<ShardExchange> make_shard_exchange(InstanceId instance);
  std::unique_ptr<ExpertDispatcher> make_expert_dispatcher(InstanceId instance);

  // Ends all waits of the group; nothing can be exchanged afterwards.
  void abort(const std::string& message) { room_.abort(message); }

 private:
  friend class LoopbackShardExchange;
  friend class LoopbackExpertDispatcher;

  const ExchangeShape shape_;
  WaitRoom room_;
  MailboxGrid kv_;
  MailboxGrid query_;
  MailboxGrid partial_;   // [out | lse]
  MailboxGrid dispatch_;  // [x | topk_idx | topk_weights]
  MailboxGrid combine_;
};

}  // namespace nanocp::comm
