// From the projections of a layer to what its attention reads: norms of heads or latents, rotary
// embedding, the K/V append (in this GPU's cache or a peer's) and the push of split rows' queries.
// Rows beyond the step's own (read on the GPU) write nothing and send nothing. All pointers are
// device memory of the current device, aligned to 16 bytes; peers' heaps are reached through
// ExchangeView. Nothing synchronises with the host, and everything may be captured. Calls fail on
// shapes that the kernels do not cover, before anything is enqueued.
//
// Order: K/V before queries. The query flag of a destination is raised when all K/V and queries
// that go there are written. A row whose K/V goes to a peer must also be sent there (comm.order).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_step.h"
#include "backend/cuda/exchange_view.h"
#include "base/result.h"

namespace nanocp::cuda {

// As ops::RotarySpec; the angle of pair i is position * frequencies[i].
struct RotaryView {
  const float* frequencies = nullptr;  // [rotary_dim / 2]
  int32_t rotary_dim = 0;              // leading values of a head that rotate; 0: none
  bool interleaved = false;            // pairs (0, 1), (2, 3).. instead of (0, d/2), (1, d/2 + 1)..
  float cos_sin_scale = 1.0F;
};

// One layer's cache in every instance's heap: token t of block b, head h is at
// b * block_stride + h * head_stride + t * token width, in elements from k_offset or v_offset.
// kE4m3: its exponent is at b * block_stride + num_kv_heads * head_stride + h * block_size + t; of
// latents behind block_size tokens.
struct CacheLayout {
  int64_t k_offset = 0;      // bytes from the heap's base, a multiple of 16; MLA: of the latents
  int64_t v_offset = 0;      // bytes from the heap's base; not used by MLA
  int64_t block_stride = 0;  // elements, a multiple of 16
  int64_t head_stride = 0;   // elements, a multiple of 16; not used by MLA
  int32_t block_size = 0;    // tokens
  CacheType type = CacheType::kBf16;
};

// Grouped-query attention. Query heads go to row r of the own query region, and those of split rows
// to the receive slots of their destinations; K and V go to the caches of their targets. Raises
// kQuery of every destination that rows are sent to.
struct PrepareGqaArgs {
  DeviceStep step;
  ExchangeView exchange;
  ExchangeEpoch epoch;  // of the layer's query exchange; not read when num_instances is 1
  int32_t rows = 0;     // bucket
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;           // 64 or 128
  const void* qkv = nullptr;      // bf16, (num_heads + 2 * num_kv_heads) * head_dim values a row
  int64_t qkv_stride = 0;         // elements, a multiple of 8
  const float* bias = nullptr;    // over all columns of qkv, or null
  const float* q_norm = nullptr;  // [head_dim] or null
  const float* k_norm = nullptr;  // [head_dim] or null
  float norm_eps = 0.0F;
  RotaryView rotary;  // rotary_dim a multiple of 16
  CacheLayout cache;
  uint32_t* counter = nullptr;  // one word, zero before the first launch; zero again after each
};
Status launch_prepare_gqa(const PrepareGqaArgs& args, cudaStream_t stream);

// Latent attention, first part: norm of the query latent to `q_latent`; norm of the KV latent and
// rotation of the shared rotary key, appended to the cache (latent, then rotary key, a token).
// Raises no flag: launch_send_queries behind it covers what it wrote to peers.
struct PrepareMlaLatentArgs {
  DeviceStep step;
  ExchangeView exchange;
  int32_t rows = 0;                // bucket
  const void* latents = nullptr;   // bf16, rows row_stride elements apart
  int64_t row_stride = 0;          // a multiple of 8
  int32_t kv_column = 0;           // of the KV latent, followed by the rotary key; a multiple of 8
  int32_t q_column = 0;            // of the query latent, a multiple of 8
  int32_t kv_rank = 0;             // values of the KV latent, a multiple of 8 up to kNormHiddenMax
  int32_t rope_dim = 0;            // values of the rotary key: 64
  int32_t q_rank = 0;              // values of the query latent, a multiple of 8; 0: there is none
  const float* kv_norm = nullptr;  // [kv_rank]
  const float* q_norm = nullptr;   // [q_rank]
  float norm_eps = 0.0F;
  RotaryView rotary;         // over rope_dim
  CacheLayout cache;         // one exponent for latent and rotary key where it is kE4m3
  void* q_latent = nullptr;  // bf16 [rows, q_rank]
};
Status launch_prepare_mla_latent(const PrepareMlaLatentArgs& args, cudaStream_t stream);

// Latent attention, second part: rotates the last rope_dim values of each query head into columns
// [h * (kv_rank + rope_dim) + kv_rank, + rope_dim) of the row's query region. The columns before
// them, the absorbed queries, are the caller's.
struct PrepareMlaQueryArgs {
  DeviceStep step;
  ExchangeView exchange;
  int32_t rows = 0;  // bucket
  int32_t num_heads = 0;
  int32_t nope_dim = 0;     // values of a head that do not rotate, a multiple of 8
  int32_t rope_dim = 0;     // 64
  int32_t kv_rank = 0;      // a multiple of 8
  const void* q = nullptr;  // bf16, num_heads * (nope_dim + rope_dim) values a row
  int64_t q_stride = 0;     // elements, a multiple of 8
  RotaryView rotary;        // over rope_dim
};
Status launch_prepare_mla_query(const PrepareMlaQueryArgs& args, cudaStream_t stream);

// Copies split rows' queries from the own query region to the receive slots of their destinations
// and raises kQuery of each. Covers all that earlier kernels of the stream wrote to peers.
struct SendQueriesArgs {
  DeviceStep step;
  ExchangeView exchange;
  ExchangeEpoch epoch;
  int32_t rows = 0;             // bucket
  uint32_t* counter = nullptr;  // one word, zero before the first launch; zero again after each
};
Status launch_send_queries(const SendQueriesArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
