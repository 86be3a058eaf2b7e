// Latents that are cached as e4m3 codes (tensor/kv_format.h), on their way to products of bf16:
// four warps fetch the codes of a tile of 64 tokens into the place of its values and spread them
// out there. Each warp has sixteen tokens, which lie in one block, and meets only its own bytes.
//
// A tile is nine chunks of 64 values: 64 rows of 128 bytes, as warpgroup_mma.cuh has them. Of a
// chunk a warp owns 2,048 bytes in one piece. Its codes, 128 bytes a row and two chunks a piece,
// arrive in the last five of its nine pieces. It spreads out one of those at a time: the values
// overwrite no codes but those that are in registers by then.
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
constexpr int kCodeSteps = (kCodeChunks + 1) / 2;  // of a tile; the last one has one chunk
constexpr int kCodeStages = 2;
constexpr uint32_t kCodePieceBytes = kCodeTokens * 128;

// Whether the barrier's phase has ended for all lanes of a warp, at once.
__device__ inline bool all_ended(uint64_t& barrier, uint32_t parity) {
  return __all_sync(0xffffffffU, device::has_ended(device::shared_address(&barrier), parity)) != 0;
}

// What the warps need besides the tiles. A barrier counts what a step waits for.
struct CodeShared {
  alignas(16) uint8_t exponents[kCodeStages][kCodeWarps][kCodeTokens];
  uint64_t arrived[kCodeStages][kCodeWarps][kCodeSteps];
};

// One thread, before the barriers are published.
__device__ inline void init_code_barriers(CodeShared& shared) {
  for (auto& stage : shared.arrived) {
    for (auto& warp : stage) {
      for (uint64_t& barrier : warp) device::init_barrier(device::shared_address(&barrier), 1);
    }
  }
}

// Tokens [token, + 16) of a block; block -1: none, which makes zeros.
struct CodeRun {
  int32_t block;
  int32_t token;
};

// Of one layer. kE4m3: the token's exponent follows the codes of its block.
struct CodeCache {
  const CUtensorMap& map;  // boxes of 16 tokens and 128 codes
  const uint8_t* codes;
  int64_t block_stride;  // bytes
  int32_t block_size;
};

// Sixteen codes as two pieces of eight values. Eight words at once, for the latency of each.
template <bool kInOne>
__device__ inline void store_codes(uint32_t to, const uint4& codes, uint32_t factor) {
  const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
  uint32_t values[2][4];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i / 4][i % 4] = device::adjacent_codes(words[i / 2], i % 2 != 0);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i / 4][i % 4] = device::times_code_factor<kInOne>(values[i / 4][i % 4], factor);
  }
  device::store_shared_16(to, values[0]);
  device::store_shared_16(to ^ 16U, values[1]);
}

// A warp's part of tiles; all its lanes.
struct CodeWarp {
  const CodeCache& cache;
  CodeShared& shared;
  int32_t warp;
  int32_t lane;

  // Asks for the codes of a tile; its place is free.
  __device__ void ask(int stage, uint32_t tile, const CodeRun& run, uint64_t policy) const {
    if (lane != 0) return;
#pragma unroll
    for (int step = 0; step < kCodeSteps; ++step) {
      const uint32_t barrier = device::shared_address(&shared.arrived[stage][warp][step]);
      const bool has_exponents = step == 0 && run.block >= 0;
      device::arrive_expecting(barrier, kCodePieceBytes + (has_exponents ? kCodeTokens : 0));
      device::load_box(tile + codes_of(step), cache.map, step * 128, run.token, run.block, barrier,
                       policy);
      if (!has_exponents) continue;
      device::copy_bulk(device::shared_address(shared.exponents[stage][warp]),
                        cache.codes + run.block * cache.block_stride +
                            static_cast<int64_t>(cache.block_size) * kLatentKeyDim + run.token,
                        kCodeTokens, barrier, policy);
    }
  }

  // Turns the codes of a tile into values, two chunks a step; after each the values are ready for
  // products and `done(step)` is called.
  template <typename Done>
  __device__ void spread(int stage, uint32_t tile, uint32_t parity, const Done& done) const {
    wait(stage, 0, parity);
    const uint32_t at =
        device::shared_address(shared.exponents[stage][warp]) + static_cast<uint32_t>(row());
    const uint32_t exponents[2] = {device::load_shared_byte(at), device::load_shared_byte(at + 8)};
    const bool in_one = __all_sync(0xffffffffU, max(exponents[0], exponents[1]) <=
                                                    device::kOneFactorExponentMax) != 0;
    if (in_one) {
      spread_steps<true>(stage, tile, parity, exponents, done);
    } else {
      spread_steps<false>(stage, tile, parity, exponents, done);
    }
  }

 private:
  __device__ void wait(int stage, int step, uint32_t parity) const {
    device::wait_phase(device::shared_address(&shared.arrived[stage][warp][step]), parity);
  }

  template <bool kInOne, typename Done>
  __device__ void spread_steps(int stage, uint32_t tile, uint32_t parity,
                               const uint32_t (&exponents)[2], const Done& done) const {
    const uint32_t factors[2] = {device::code_factor<kInOne>(exponents[0]),
                                 device::code_factor<kInOne>(exponents[1])};
    // Eight lanes meet all banks, in codes and in values: their two rows differ in bits 0 and 2.
    const uint32_t read_at = device::swizzled_offset(row(), lane % 4);
    const uint32_t write_at = device::swizzled_offset(row(), lane % 4 * 2);
#pragma unroll 1
    for (int step = 0; step < kCodeSteps; ++step) {
      if (step > 0) wait(stage, step, parity);
      const uint32_t from = tile + codes_of(step) + read_at;
      const uint4 codes[4] = {device::load_shared_16(from),
                              device::load_shared_16(from + kCodePieceBytes / 2),
                              device::load_shared_16(from ^ 64U),
                              device::load_shared_16((from ^ 64U) + kCodePieceBytes / 2)};
      __syncwarp();
      const uint32_t to = tile + piece_of(2 * step) + write_at;
      store_codes<kInOne>(to, codes[0], factors[0]);
      store_codes<kInOne>(to + kCodePieceBytes / 2, codes[1], factors[1]);
      if (step + 1 < kCodeSteps) {
        const uint32_t next = to + kCodeWarps * kCodePieceBytes;
        store_codes<kInOne>(next, codes[2], factors[0]);
        store_codes<kInOne>(next + kCodePieceBytes / 2, codes[3], factors[1]);
      }
      device::publish_shared();
      __syncwarp();
      done(step);
    }
  }

  // Of the eight rows that a warp takes at once, the one of this lane.
  __device__ int32_t row() const {
    return lane / 8 ^ ((lane & 4) != 0 ? 5 : 0);
  }

  __device__ uint32_t piece_of(int chunk) const {
    return static_cast<uint32_t>(chunk * kCodeWarps + warp) * kCodePieceBytes;
  }
  __device__ uint32_t codes_of(int step) const {
    return piece_of(kCodeChunks - kCodeSteps + step);
  }
};

// Which blocks a warp's runs of the tiles of a row are in, for 32 tiles: read ahead, since what is
// under way from memory is waited for wherever values are made visible to products.
struct CodeBlocks {
  int32_t first_tile;
  int32_t blocks[32];

  // All lanes; `find`: the block of a tile.
  template <typename Find>
  __device__ void start(int32_t tile, int32_t lane, const Find& find) {
    const int32_t block = find(tile + lane);
    __syncwarp();
    if (lane == 0) first_tile = tile;
    blocks[lane] = block;
    __syncwarp();
  }
  template <typename Find>
  __device__ int32_t at(int32_t tile, int32_t lane, const Find& find) {
    if (tile - first_tile >= 32) start(tile, lane, find);
    return blocks[tile - first_tile];
  }
};

}  // namespace
}  // namespace nanocp::cuda
