// Decode attention on one GPU: a list of rows of any lengths in one launch. The split of long rows
// over the GPU is computed on the GPU from the lengths in device memory, so that a captured graph
// never depends on them (see docs/decisions/0005-gpu-decode-attention-schedule.md).
//
// Grouped-query attention with bf16 queries, head sizes 64 and 128, up to 16 query heads per KV
// head, sliding window. Rows bound to other instances are waited for inside the kernel,
// behind the rows of this one. All pointers are device memory of the current device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/cuda/exchange_view.h"
#include "base/result.h"

namespace nanocp::cuda {

// One query row against one shard. Written by the host's plan upload.
struct AttentionRow {
  int32_t row;          // of q, out and lse
  int32_t position;     // sees tokens at positions <= this one
  int32_t block_begin;  // first entry in `blocks` and `block_idx`
  int32_t num_blocks;   // may be 0: the result is neutral
  int32_t source;       // instance the row is bound to; -1 or the own one: local
};

// How K and V are cached. kE4m3: e4m3 codes and, behind those of all heads of a block, an exponent
// for each head and token (tensor/kv_format.h, KvFormat::kFp8).
enum class CacheType : int32_t { kBf16, kE4m3 };

struct AttentionDecodeConfig {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;        // 64 or 128
  int32_t block_size = 0;      // tokens, a multiple of 16
  int32_t sliding_window = 0;  // tokens seen, the own one included; 0: all
  float softmax_scale = 1.0F;
  int32_t max_rows = 0;  // rows of one launch at most
  CacheType cache_type = CacheType::kBf16;
};

struct AttentionDecodeArgs {
  AttentionDecodeConfig config;
  const AttentionRow* rows;  // [max_rows]
  const int32_t* num_rows;   // device-side count, <= max_rows
  const int32_t* blocks;     // block ids of all rows' shards
  const int32_t* block_idx;  // the blocks' places in their sequences, rising within a row
  const void* q;             // bf16 [*, num_heads * head_dim]
  // Cache: token t of block b, head h at b * block_stride + h * head_stride + t * head_dim. Strides
  // and addresses are multiples of 16 bytes.
  const void* k;
  const void* v;
  int64_t block_stride;  // elements of the cache type
  int64_t head_stride;   // elements
  float* out;            // [*, num_heads * head_dim]
  float* lse;            // [*, num_heads], natural logarithm; -infinity where nothing is seen
  void* workspace;       // attention_decode_workspace_bytes(config)
  // With more than one instance: a row's query and KV are read once its source has raised kQuery
  // for `epoch`, and the launch ends after all sources of its rows have. Rows of other instances
  // stand last, by source. One instance (or none): nothing is waited for.
  ExchangeView exchange;
  ExchangeEpoch epoch;
};

// What a launch needs besides its arguments, in bytes; fails on shapes the kernels do not cover.
Result<size_t> attention_decode_workspace_bytes(const AttentionDecodeConfig& config);

// Enqueues the split of the work, from the lengths in device memory. Once per step and kind of
// layer (window): it stays in the workspace and serves all launches with the same rows and config.
Status launch_attention_schedule(const AttentionDecodeArgs& args, cudaStream_t stream);

// Enqueues attention behind the schedule, on the same stream. No host synchronisation; may be
// captured.
Status launch_attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
