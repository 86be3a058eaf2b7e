// New K/V between a cache and a buffer that is contiguous by row, for exchanges that cannot store
// into the cache of a peer. All pointers are device memory of the current device, aligned to 16
// bytes. Nothing synchronises with the host.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/attention_inputs.h"
#include "base/result.h"

namespace nanocp::cuda {

// What one token has in one layer's cache: for K (latents) and V, `token_values` for each head.
struct CacheRows {
  CacheLayout layout;
  int32_t num_heads = 0;     // KV heads; 1 for latent attention
  int32_t token_values = 0;  // of one head, in bytes a multiple of 16
  bool has_values = false;   // there is a V beside the K
};

// Of a packed row, a multiple of 16.
int64_t cache_row_bytes(const CacheRows& rows);

struct CacheRowsArgs {
  CacheRows rows;
  uint8_t* heap = nullptr;         // that the layout's offsets begin at
  const int64_t* slots = nullptr;  // [num_rows] block * block_size + token
  int32_t num_rows = 0;
  uint8_t* packed = nullptr;  // [num_rows, cache_row_bytes]: K by head, V by head, exponents
};
// packed := what the cache has at the slots.
Status launch_gather_cache_rows(const CacheRowsArgs& args, cudaStream_t stream);
// The cache at the slots := packed.
Status launch_scatter_cache_rows(const CacheRowsArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
