// How instances on GPUs exchange rows, as the runner sees it: every instance has a heap of one
// layout, and its kernels store into "the heap of instance p" through an ExchangeView. Where GPUs
// reach one another's memory that is p's heap itself (comm/nvlink); elsewhere it is an outbox on
// the same GPU, and a link moves what kernels left there (comm/nccl).
//
// The group is owned by the runner, created and destroyed by its thread, and outlives all kernels
// that use its views. abort() and failure() may be called from any thread, all of a link and
// leave() from the instance's own.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>
#include <string>

#include "backend/cuda/exchange_view.h"
#include "backend/cuda/kv_rows.h"
#include "base/result.h"
#include "plan/ids.h"
#include "plan/instance_plan.h"

namespace nanocp::comm {

// What one instance enqueues between kernels that write rows and kernels that read them.
class ExchangeLink {
 public:
  virtual ~ExchangeLink() = default;

  // Ahead of a step's launches: fixes what its exchanges move. All instances pass the same plans.
  virtual Status begin_step(std::span<const InstancePlan> plans, cudaStream_t stream) = 0;
  // Whether the step's exchanges of a kind move anything to or from this instance.
  virtual bool moves(cuda::WaitPurpose purpose) const = 0;
  // Moves the rows of one exchange. All instances make the same ordered list of calls in a step,
  // with or without rows. `cache` is read for kQuery: the layer's cache, from whose staging slots
  // the K/V of own rows goes to its holders and where that of received rows is stored.
  virtual Status carry(cuda::WaitPurpose purpose, uint64_t epoch, const cuda::CacheRows& cache,
                       cudaStream_t stream) = 0;
  // To be called while the host waits for the stream. Fails once the group has, or when the
  // exchanges have not moved on for as long as a wait may take; then it names who waited for whom.
  virtual Status watch() = 0;
};

class ExchangeGroup {
 public:
  virtual ~ExchangeGroup() = default;

  virtual cuda::ExchangeView view(InstanceId instance) const = 0;
  virtual int64_t heap_bytes() const = 0;  // of one instance
  // Null where kernels reach the heaps of peers themselves.
  virtual ExchangeLink* link(InstanceId instance) = 0;

  // Ends all waits; nothing can be exchanged afterwards. The first message stays.
  virtual void abort(const std::string& message) = 0;
  // Called when the instance's step has failed: ends what its GPU still waits for.
  virtual void leave(InstanceId instance) = 0;
  // The cause, once a wait has run out or the group was aborted.
  virtual Status failure() const = 0;
};

}  // namespace nanocp::comm
