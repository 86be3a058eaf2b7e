// Latents that are cached as e4m3 codes (tensor/kv_format.h), on their way to products of bf16:
// four warps fetch the codes of a tile of 64 tokens into the place of its values and spread them
// out there. Each warp has sixteen tokens, which lie in one block, and meets only its own bytes.
//
// A tile is nine chunks of 64 values: 64 rows of 128 bytes, as warpgroup_mma.cuh has them. Of a
// chunk a warp owns 2,048 bytes in one piece. Its codes, 1,024 bytes for each chunk, arrive in the
// upper half of what it owns: the values of a chunk overwrite codes of earlier chunks alone, but
// for the last one, whose codes are all in registers before a value is written.
#pragma once

#include <cuda.h>

#include "backend/cuda/device/bulk_load.cuh"
#include "backend/cuda/device/e4m3.cuh"
#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/device/tensor_load.cuh"
#include "backend/cuda/device/warpgroup_mma.cuh"
#include "backend/cuda/mla_decode.h"

namespace nanocp::cuda {
namespace {

constexpr int kCodeTokens = 16;  // of a warp; never straddle blocks
constexpr int kCodeWarps = 4;
constexpr int kCodeChunks = kLatentKeyDim / 64;
constexpr int kCodeStages = 2;
constexpr uint32_t kCodeBoxBytes = kCodeTokens * 64;
constexpr uint32_t kValueBoxBytes = kCodeTokens * 128;

// Count the bytes of a box, by the stage of its tile.
struct CodeBarriers {
  uint64_t arrived[kCodeStages][kCodeWarps][kCodeChunks];
};

// One thread, before the barriers are published.
__device__ inline void init_code_barriers(CodeBarriers& barriers) {
  for (auto& stage : barriers.arrived) {
    for (auto& warp : stage) {
      for (uint64_t& barrier : warp) device::init_barrier(device::shared_address(&barrier), 1);
    }
  }
}

// Tokens [token, + 16) of a block.
struct CodeRun {
  int32_t block;
  int32_t token;
};

// Of one layer. kE4m3: the token's exponent follows the codes of its block.
struct CodeCache {
  const CUtensorMap& map;  // boxes of 16 tokens
  const uint8_t* codes;
  int64_t block_stride;  // bytes
  int32_t block_size;
};

// A warp's part of tiles; all its lanes.
struct CodeWarp {
  const CodeCache& cache;
  CodeBarriers& barriers;
  int32_t warp;
  int32_t lane;

  // Asks for the codes of a tile; its place is free.
  __device__ void ask(int stage, uint32_t tile, const CodeRun& run, uint64_t policy) const {
    if (lane >= kCodeChunks) return;
    const uint32_t barrier = device::shared_address(&barriers.arrived[stage][warp][lane]);
    device::arrive_expecting(barrier, kCodeBoxBytes);
    device::load_box(codes_of(tile, lane), cache.map, lane * 64, run.token, run.block, barrier,
                     policy);
  }

  // The exponents of the tokens that this lane spreads out, lane / 4 and 8 later. Past the first
  // cache, for other GPUs write here.
  __device__ uint32_t load_exponents(const CodeRun& run) const {
    const uint8_t* at = cache.codes + run.block * cache.block_stride +
                        static_cast<int64_t>(cache.block_size) * kLatentKeyDim + run.token +
                        lane / 4;
    return static_cast<uint32_t>(__ldcg(at)) | static_cast<uint32_t>(__ldcg(at + 8)) << 16;
  }

  // Into the second-level cache.
  __device__ void prefetch(const CodeRun& run) const {
    if (lane > 0) return;
    device::prefetch_bulk(cache.codes + run.block * cache.block_stride +
                              static_cast<int64_t>(run.token) * kLatentKeyDim,
                          kCodeTokens * kLatentKeyDim);
  }

  __device__ void wait_codes(int stage, int chunk, uint32_t parity) const {
    device::wait_phase(device::shared_address(&barriers.arrived[stage][warp][chunk]), parity);
  }

  // Turns the codes of a chunk into its values, for products.
  __device__ void spread(uint32_t tile, int chunk, uint32_t exponents) const {
    const uint32_t from = codes_of(tile, chunk) + static_cast<uint32_t>(lane * 16);
    const uint4 first = device::load_shared_16(from);
    const uint4 second = device::load_shared_16(from + kCodeBoxBytes / 2);
    __syncwarp();
    const uint32_t to = tile + values_of(chunk) + device::swizzled_offset(lane / 4, lane % 4 * 2);
    store(to, first, exponents & 0xffffU);
    store(to + kValueBoxBytes / 2, second, exponents >> 16);
    device::publish_shared();
    __syncwarp();
  }

 private:
  __device__ uint32_t values_of(int chunk) const {
    return static_cast<uint32_t>(chunk * kCodeWarps + warp) * kValueBoxBytes;
  }
  __device__ uint32_t codes_of(uint32_t tile, int chunk) const {
    const int place = kCodeChunks + chunk;  // in boxes of codes, of which a piece holds two
    return tile + values_of(place / 2) + static_cast<uint32_t>(place % 2) * kCodeBoxBytes;
  }
  // Sixteen codes as two pieces of eight values.
  __device__ static void store(uint32_t to, const uint4& codes, uint32_t exponent) {
    const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int piece = 0; piece < 2; ++piece) {
      uint32_t values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // Two adjacent codes to the upper bytes of the halves.
        const uint32_t pair =
            __byte_perm(words[2 * piece + i / 2], 0, i % 2 == 0 ? 0x1404 : 0x3424);
        values[i] = device::scale_codes(device::odd_codes(pair), exponent);
      }
      device::store_shared_16(to ^ static_cast<uint32_t>(piece * 16), values);
    }
  }
};

}  // namespace
}  // namespace nanocp::cuda
