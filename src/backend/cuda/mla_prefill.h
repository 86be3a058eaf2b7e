// Latent prefill attention (MLA) on one GPU: chunks of consecutive tokens of sequences, each
// against one shard of its sequence. As attention_prefill.h: results are partial where a sequence
// is spread over instances, and are merged by their LSE.
//
// The absorbed form, as in mla_decode.h: every (row, head) pair is a query of 576 values against
// the same cache, so 64 adjacent pairs make one tile of a product, whatever the number of heads.
// Rows of other instances come absorbed; what up-projected keys would save: docs/benchmarks. All
// pointers are device memory of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/cuda/attention_prefill.h"
#include "backend/cuda/mla_decode.h"
#include "base/result.h"

namespace nanocp::cuda {

struct MlaPrefillConfig {
  int32_t num_heads = 0;
  int32_t block_size = 0;  // tokens, a multiple of 16
  float softmax_scale = 1.0F;
  int32_t max_rows = 0;  // of all items of one launch at most
  CacheType cache_type = CacheType::kBf16;
};

struct MlaPrefillArgs {
  MlaPrefillConfig config;
  const PrefillItem* items;  // sources are not waited for
  const int32_t* num_items;  // device-side count
  const int32_t* blocks;     // block ids of all items' shards
  const int32_t* block_idx;  // the blocks' places in their sequences, rising within an item
  const void* q;             // bf16 [q_rows, num_heads * 576]: latent part, then rotary, a head
  int64_t q_rows;            // that may be read; items name fewer
  const void* cache;         // as MlaDecodeArgs; no NaN anywhere
  int64_t block_stride;      // elements of the cache type, a multiple of 16 bytes
  float* out;                // [*, num_heads * 512]; 0 where nothing is seen
  float* lse;                // [*, num_heads], natural logarithm; -infinity where nothing is seen
  void* workspace;           // mla_prefill_workspace_bytes(config), kept between the two launches
  // With more than one instance: an item is read once its source has raised kQuery for `epoch`.
  ExchangeView exchange;
  ExchangeEpoch epoch;
};

// Fails on shapes not covered.
Result<size_t> mla_prefill_workspace_bytes(const MlaPrefillConfig& config);

// Enqueues the split of the work, once for all layers of a step, from config, items and blocks; no
// host synchronisation.
Status launch_mla_prefill_schedule(const MlaPrefillArgs& args, cudaStream_t stream);

// Enqueues attention of all items; the schedule has been enqueued for the same items before.
Status launch_mla_prefill(const MlaPrefillArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
