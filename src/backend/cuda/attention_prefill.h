// Prefill attention on one GPU: runs of consecutive tokens of sequences (chunks), each against one
// shard of its sequence. A chunk whose earlier KV is spread over instances is attended by each of
// them for its own shard; the results are partial and are merged by their LSE, as in decode.
//
// Grouped-query attention with bf16 queries, head sizes 64 and 128, up to 16 query heads per KV
// head, sliding window. All pointers are device memory of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/exchange_view.h"
#include "base/result.h"

namespace nanocp::cuda {

// A chunk's rows [row_begin, row_begin + num_rows) of q, out and lse; row i is at position
// first_position + i and sees its own token and all earlier ones that the shard holds.
struct PrefillItem {
  int32_t row_begin;
  int32_t num_rows;
  int32_t first_position;
  int32_t block_begin;  // first entry in `blocks` and `block_idx`
  int32_t num_blocks;   // may be 0: the results are neutral
  int32_t source;       // instance the rows are bound to; -1 or the own one: local
};

struct AttentionPrefillArgs {
  AttentionDecodeConfig config;  // max_rows is not used
  const PrefillItem* items;      // those of other instances last
  const int32_t* num_items;      // device-side count
  const int32_t* blocks;         // block ids of all items' shards
  const int32_t* block_idx;      // the blocks' places in their sequences, rising within an item
  const void* q;                 // bf16 [*, num_heads * head_dim]
  // Cache: as in AttentionDecodeArgs.
  const void* k;
  const void* v;
  int64_t block_stride;  // elements of the cache type
  int64_t head_stride;   // elements
  float* out;            // [*, num_heads * head_dim]; 0 where nothing is seen
  float* lse;            // [*, num_heads], natural logarithm; -infinity where nothing is seen
  // With more than one instance: an item is read once its source has raised kQuery for `epoch`.
  ExchangeView exchange;
  ExchangeEpoch epoch;
};

// Enqueues attention of all items; no host synchronisation. Fails on shapes not covered.
Status launch_attention_prefill(const AttentionPrefillArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
