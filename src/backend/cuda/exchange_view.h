// What kernels see of the memory that instances exchange rows through. Every instance has a heap of
// the same layout; `base[i]` is instance i's heap as this GPU reaches it, so an object of instance
// i is at base[i] + its offset. Over NCCL it is an outbox for instance i instead (comm.link). Plain
// data, by value in kernel parameters; the memory belongs to comm/nvlink or comm/nccl. Slots are
// single-buffered but for the router's choices: comm/CONTRACT.md, comm.flow_control says why that
// is enough.
#pragma once

#include <cstdint>

#include "backend/cuda/wait_report.h"

namespace nanocp::cuda {

// Offsets into a heap, in bytes, each a multiple of 256; the same on all instances.
struct ExchangeOffsets {
  // bf16 [(1 + num_instances) * max_rows, query_values]: the own rows' queries, then the receive
  // slots of each source: row r is at r, slot i of source s at (1 + s) * max_rows + i.
  int64_t query;
  // bf16 [num_instances, max_rows, partial_values] and float [num_instances, max_rows, num_heads]:
  // partial results of the own rows, by the instance that returned them and its receive slot.
  int64_t partial_out;
  int64_t partial_lse;
  // bf16 [num_instances, max_rows, hidden]: rows to the experts, by source; the region of this
  // instance itself holds its own normed rows.
  int64_t dispatch_x;
  // ExpertChoice [2, num_instances, max_rows, topk] and RowCount [2, num_instances]: the router's
  // choice for each row of each source (all rows, also those that no expert here works on), and
  // their number; by the parity of the epoch.
  int64_t choices;
  int64_t row_counts;
  // bf16 [num_instances, max_rows, hidden]: weighted sums for the own rows, by the instance that
  // computed them. Filled with kNotArrived whenever no sum lies there unread.
  int64_t combine;
  // uint64 [kNumFlagKinds, num_instances]: last epoch raised by each instance.
  int64_t flags;
  // The KV cache, laid out as the model says.
  int64_t kv_cache;
};

enum class FlagKind : int32_t { kQuery, kPartial, kDispatch };
constexpr int32_t kNumFlagKinds = 3;

// These travel as one store of 16 bytes: whoever reads the epoch reads what belongs to it.
struct alignas(16) ExpertChoice {
  int32_t expert;
  float weight;
  uint64_t epoch;
};
struct alignas(16) RowCount {
  int32_t num_rows;
  int32_t unused;
  uint64_t epoch;
};

// Two bf16 that no sum can be: conversions give NaN as 0x7fff.
constexpr uint32_t kNotArrived = 0xffffffffU;
constexpr int32_t kNotArrivedByte = 0xff;

// The number of an exchange: the index-th (from 0) of `per_step` exchanges of its kind in the step
// whose number (from 1) is at `step` in device memory.
struct ExchangeEpoch {
  const uint64_t* step;
  int32_t per_step;
  int32_t index;
};

// What a kernel does that sends rows back and then works on those that came back: both in one
// launch where stores reach the peers; otherwise the rows travel between two launches.
enum class ExchangePart : int32_t { kBoth, kReturn, kMerge };

struct ExchangeView {
  uint8_t* const* base;  // device memory, [num_instances]
  ExchangeOffsets offsets;
  WaitControl wait;
  int32_t self;
  int32_t num_instances;
  int32_t max_rows;  // capacity of each region
  int32_t hidden;    // values of a dispatched or combined row
  int32_t topk;
  int32_t num_heads;       // query heads
  int32_t query_values;    // num_heads * k_dim
  int32_t partial_values;  // num_heads * v_dim
};

}  // namespace nanocp::cuda
