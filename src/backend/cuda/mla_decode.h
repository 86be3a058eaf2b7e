// Latent decode attention (MLA) on one GPU: rows of any lengths in one launch, over a cache of one
// latent and rotary key per token. As attention_decode.h: the split of long rows over the GPU is
// computed on the GPU from the lengths in device memory.
//
// bf16 queries and cache; 512 + 64 values per token, whose first 512 are the values too; any number
// of heads, taken 64 at a time. Rows bound to other instances are waited for inside the kernel,
// behind the rows of this one. All pointers are device memory of the current device (sm_90a).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/cuda/attention_decode.h"
#include "base/result.h"

namespace nanocp::cuda {

constexpr int32_t kLatentDim = 512;
constexpr int32_t kLatentKeyDim = 576;  // with the rotary key

struct MlaDecodeConfig {
  int32_t num_heads = 0;
  int32_t block_size = 0;      // tokens, a multiple of 16
  float softmax_scale = 1.0F;  // positive
  int32_t max_rows = 0;        // rows of one launch at most
};

struct MlaDecodeArgs {
  MlaDecodeConfig config;
  const AttentionRow* rows;  // [max_rows]
  const int32_t* num_rows;   // device-side count, <= max_rows
  const int32_t* blocks;     // block ids of all rows' shards
  const int32_t* block_idx;  // the blocks' places in their sequences, rising within a row
  const void* q;             // bf16 [*, num_heads, 576], at a multiple of 16 bytes
  const void* cache;         // bf16; token t of block b at b * block_stride + t * 576; likewise
  int64_t block_stride;      // elements, a multiple of 8
  float* out;                // [*, num_heads, 512]
  float* lse;                // [*, num_heads], natural logarithm; -infinity where nothing is seen
  void* workspace;           // mla_decode_workspace_bytes(config)
  // Waits for rows of other instances: see AttentionDecodeArgs. One instance (or none): no waits.
  ExchangeView exchange;
  ExchangeEpoch epoch;
};

Result<size_t> mla_decode_workspace_bytes(const MlaDecodeConfig& config);

// Enqueues the split of the work; once per step, it serves all layers.
Status launch_mla_schedule(const MlaDecodeArgs& args, cudaStream_t stream);

// Enqueues attention behind the schedule, on the same stream. No host synchronisation; may be
// captured. Rows, blocks and the schedule are read ahead of the end of the kernel before: what
// writes them must not let the next kernel begin early. Blocks of a long row wait for one another,
// so all multiprocessors must be this process's own.
Status launch_mla_decode(const MlaDecodeArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
