// One step's plan in device memory: counts and tables at fixed addresses that the host rewrites
// before every step, so that captured graphs never change. Filled by the runner; kernels read it.
// Plain data, by value in kernel parameters; all pointers are memory of this instance's GPU.
#pragma once

#include <cstdint>

#include "backend/cuda/attention_decode.h"

namespace nanocp::cuda {

struct StepHeader {
  uint64_t step;        // from 1; the epoch of exchange e of the step's n is (step - 1) * n + e + 1
  int32_t num_rows;     // own rows
  int32_t num_samples;  // rows whose logits are needed
  int32_t num_attention_rows;  // own rows and received ones
  int32_t num_sends;           // query sends
};

// Own row `row` goes to receive slot `slot` of `destination`.
struct QuerySend {
  int32_t row;
  int32_t destination;
  int32_t slot;
};

// Where the K/V of an own row is stored: in the cache of `instance`, at block * block_size +
// offset.
struct KvTarget {
  int64_t slot;  // -1: nowhere
  int32_t instance;
  int32_t unused;
};

// A partial result of an own row that `destination` returns in its slot `slot`.
struct MergeEntry {
  int32_t destination;
  int32_t slot;
};

struct DeviceStep {
  const StepHeader* header;
  const int32_t* token_ids;     // [max_rows]; -1 - i: sample i of the step before
  const int32_t* positions;     // [max_rows]
  const KvTarget* kv_targets;   // [max_rows]
  const int32_t* sample_rows;   // [max_rows] rising
  const QuerySend* sends;       // [max_rows * (num_instances - 1)] by destination
  const int32_t* num_sent;      // [num_instances] rows sent to each
  const int32_t* num_received;  // [num_instances] rows received from each
  // Exactly one entry per own row (in order) and then per received row (by source, in slot order);
  // `row` is the index in the exchange's query region. A row whose shard here is empty has 0
  // blocks.
  const AttentionRow* attention_rows;
  const int32_t* num_attention_rows;  // device-side copy of the header's count
  const int32_t* blocks;
  const int32_t* block_idx;
  const int32_t* merge_begin;  // [max_rows + 1]
  const MergeEntry* merges;    // of own row r: [merge_begin[r], merge_begin[r + 1])
};

}  // namespace nanocp::cuda
