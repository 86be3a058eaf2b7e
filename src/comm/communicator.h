// What instances say to one another during a step. Each instance owns one ShardExchange and one
// ExpertDispatcher; all instances of a group make the same ordered list of exchanges (epochs), also
// when they have no rows. See comm/CONTRACT.md. Backends: comm/loopback (threads of one process).
//
// Threads: every object is used by its instance's thread alone.
// Errors: a wait that runs out returns kDeadlineExceeded and names who waited for whom; once any
// instance has failed, all waits of the group return kAborted.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "plan/instance_plan.h"
#include "tensor/matrix.h"

namespace nanocp::comm {

// Widths and capacities, equal on all instances of a group.
struct ExchangeShape {
  int32_t num_instances = 1;
  int64_t max_rows = 0;        // own rows of one instance in one step
  int64_t query_values = 0;    // floats of a query row: num_heads * k_dim
  int64_t kv_values = 0;       // floats of a new K/V row
  int64_t partial_values = 0;  // floats of a partial output row: num_heads * v_dim
  int64_t lse_values = 0;      // num_heads
  int64_t hidden_values = 0;   // floats of a dispatched or combined row
  int64_t topk = 0;            // experts per row
};

// One partial result per received query row, in receive-slot order.
template <typename MatrixType>
struct BasicPartials {
  MatrixType out;  // [rows, partial_values]
  MatrixType lse;  // [rows, lse_values]
};
using Partials = BasicPartials<tensor::Matrix>;
using ConstPartials = BasicPartials<tensor::ConstMatrix>;

// Query out, new K/V out, partial output and LSE back: one epoch per attention layer.
class ShardExchange {
 public:
  virtual ~ShardExchange() = default;

  // Starts an epoch: pushes the own rows that `plan` sends into the destinations' slots, K/V
  // before queries, then the flags. q [rows, query_values], kv [rows, kv_values].
  // Requires: rows whose K/V goes to an instance also send it their query (flow control).
  virtual Status send(const InstancePlan& plan, tensor::ConstMatrix q, tensor::ConstMatrix kv) = 0;

  // The rows that `source` sent in this epoch, in slot order. Waits for its flag.
  struct Received {
    tensor::ConstMatrix q;   // [num_query_receives[source], query_values]
    tensor::ConstMatrix kv;  // [num_kv_receives[source], kv_values]
  };
  virtual Result<Received> wait_rows(InstanceId source) = 0;

  // Slots at `source` for the partials of the rows it sent; written in place, then posted.
  virtual Partials return_slots(InstanceId source) = 0;
  virtual void post_return(InstanceId source) = 0;

  // The partials that `destination` returned for the own rows sent to it, in slot order.
  virtual Result<ConstPartials> wait_return(InstanceId destination) = 0;
};

// Rows to the instances that own their experts and back: one epoch per MoE layer. Each row travels
// once per destination instance, and one weighted sum comes back.
class ExpertDispatcher {
 public:
  virtual ~ExpertDispatcher() = default;

  // Starts an epoch. x [rows, hidden_values]; topk_idx, topk_weights [rows * topk].
  // `owner_of_expert` [num_experts] is the same on all instances.
  struct Rows {
    tensor::ConstMatrix x;
    std::span<const int32_t> topk_idx;
    std::span<const float> topk_weights;
    std::span<const InstanceId> owner_of_expert;
  };
  virtual Status dispatch(const Rows& rows) = 0;

  // What `source` sent here in this epoch, in slot order. Waits for its flag, which every instance
  // posts to every other, also for no rows.
  struct Received {
    tensor::ConstMatrix x;                // [count, hidden_values]
    std::span<const int32_t> topk_idx;    // [count * topk], as the router chose them
    std::span<const float> topk_weights;  // [count * topk]
  };
  virtual Result<Received> wait_rows(InstanceId source) = 0;

  // Slots at `source` for the weighted sums of the rows it sent; written in place, then posted.
  virtual tensor::Matrix combine_slots(InstanceId source) = 0;
  virtual void post_combine(InstanceId source) = 0;

  // out[row] += the sums of all destinations, in their order. out [rows, hidden_values].
  virtual Status combine(tensor::Matrix out) = 0;
};

}  // namespace nanocp::comm
