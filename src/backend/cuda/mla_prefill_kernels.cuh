// The attend kernel of latent prefill attention.
//
// A block has a tile of 64 queries in shared memory and takes 64 tokens at a time. Warpgroup 0
// scores them, keeps the running softmax and adds up the first 256 output columns; warpgroup 1 adds
// up the other 256 with the weights that it gets through shared memory; a warp of a third warpgroup
// asks for tiles ahead. While warpgroup 0 weighs one tile, warpgroup 1 has the tensor cores for the
// tile before.
#pragma once

#include "backend/cuda/device/warpgroup_mma_registers.cuh"
#include "backend/cuda/mla_prefill_codes.cuh"
#include "backend/cuda/mla_prefill_shared.cuh"

namespace nanocp::cuda {
namespace {

// What all lanes have read or written comes before it.
__device__ inline void warp_arrive(uint64_t& barrier) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) arrive(shared_address(&barrier));
}

// Base 2; the smallest results are zero.
__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// The pairs that a thread of a warpgroup holds: rows `row` and `row + 8` of the block's tile.
struct ThreadRows {
  int32_t row;
  int32_t first_position;  // of the tile's first pair
  int32_t position[2];
  int64_t pair[2];  // of out and lse; -1: past the end of the item

  __device__ void start(const Params& params, const Unit& unit) {
    const PrefillItem item = params.args.items[unit.item];
    const int32_t heads = params.args.config.num_heads;
    const auto thread = static_cast<int32_t>(threadIdx.x) % kGroupThreads;
    row = thread / 32 * 16 + thread % 32 / 4;
    first_position = item.first_position + unit.first / heads;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t at = unit.first + row + half * 8;
      position[half] = item.first_position + at / heads;
      pair[half] =
          at < item.num_rows * heads ? static_cast<int64_t>(item.row_begin) * heads + at : -1;
    }
  }
};

// Where the result of a segment goes: to out and lse, or to a slot of partial results.
struct Destination {
  bool is_final;
  int64_t partial;  // index of the tile's first pair otherwise
};

__device__ inline Destination find_destination(const SegmentWalk& walk) {
  const bool starts_here = walk.tile == 0;
  const bool ends_here = walk.tile + walk.count() == walk.unit.num_tiles;
  const int32_t slot = 2 * static_cast<int32_t>(blockIdx.x) + (starts_here ? 1 : 0);
  return {starts_here && ends_here, int64_t{slot} * kTileQueries};
}

// This warpgroup's 256 columns from `column` on.
__device__ __forceinline__ void write_columns(const Params& params, const ThreadRows& rows,
                                              const Destination& destination, int column,
                                              const float (&acc)[kHalfDims / 2],
                                              const float (&factors)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* out;
    if (destination.is_final) {
      if (rows.pair[half] < 0) continue;
      out = params.args.out + rows.pair[half] * kLatentDim;
    } else {
      out = params.workspace.partial_out + (destination.partial + rows.row + half * 8) * kLatentDim;
    }
    out += column + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
    for (int i = 0; i < kHalfDims / 8; ++i) {
      *reinterpret_cast<float2*>(out + i * 8) = {acc[4 * i + 2 * half] * factors[half],
                                                 acc[4 * i + 2 * half + 1] * factors[half]};
    }
  }
}

__device__ __forceinline__ void clear(float (&acc)[kHalfDims / 2]) {
#pragma unroll
  for (int i = 0; i < kHalfDims / 2; ++i) acc[i] = 0.0F;
}

__device__ __forceinline__ void rescale_columns(float (&acc)[kHalfDims / 2],
                                                const float (&rescale)[2]) {
  if (__all_sync(0xffffffffU, rescale[0] == 1.0F && rescale[1] == 1.0F)) return;
#pragma unroll
  for (int i = 0; i < kHalfDims / 2; ++i) acc[i] *= rescale[i / 2 % 2];
}

// The running softmax of 64 queries, spread over warpgroup 0.
struct Softmax {
  float row_max[2];  // base 2
  float row_sum[2];  // of this thread's tokens

  __device__ void start() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      row_max[half] = kNothingSeen;
      row_sum[half] = 0.0F;
    }
  }

  // Turns scores into weights.
  __device__ __forceinline__ void weigh(float scale_log2, float (&scores)[32],
                                        float (&rescale)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = kNothingSeen;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        largest = fmaxf(largest, fmaxf(scores[4 * i + 2 * half], scores[4 * i + 2 * half + 1]));
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const float new_max = fmaxf(row_max[half], largest * scale_log2);
      // A row that has seen nothing keeps -infinity; 0 stands in to avoid inf - inf.
      const float base = new_max == kNothingSeen ? 0.0F : new_max;
      rescale[half] = exp2_approximate(row_max[half] - base);
      row_max[half] = new_max;
      float sum = 0.0F;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 4 * i + 2 * half; j < 4 * i + 2 * half + 2; ++j) {
          scores[j] = exp2_approximate(scores[j] * scale_log2 - base);
          sum += scores[j];
        }
      }
      row_sum[half] = row_sum[half] * rescale[half] + sum;
    }
  }

  __device__ __forceinline__ float total(int half) const {
    float sum = row_sum[half];
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    return sum + __shfl_xor_sync(0xffffffffU, sum, 2);
  }
};

// Of the first token of the lane's run, one of four, in a tile.
__device__ __forceinline__ int32_t find_position(const MlaPrefillArgs& args,
                                                 const PrefillItem& item, int32_t tile) {
  const int32_t token = tile * kTileTokens + static_cast<int32_t>(threadIdx.x) % kRuns * kRunTokens;
  const int32_t size = args.config.block_size;
  const int32_t at = token / size;
  if (at >= item.num_blocks) return kNoPosition;
  return args.block_idx[item.block_begin + at] * size + token % size;
}

// Hides the tokens of a tile that come after a row. `position` is that of the lane's run.
__device__ __forceinline__ void hide_later(const ThreadRows& rows, int32_t position,
                                           float (&scores)[32]) {
  int32_t positions[kRuns];
#pragma unroll
  for (int i = 0; i < kRuns; ++i) positions[i] = __shfl_sync(0xffffffffU, position, i);
  if (positions[kRuns - 1] + kRunTokens - 1 <= rows.first_position) return;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int32_t at = positions[i / 8] + i / 4 % 2 * 8 + lane % 4 * 2 + i % 2;
    if (at > rows.position[i / 2 % 2]) scores[i] = kNothingSeen;
  }
}

// Warpgroup 0: scores, softmax, and the first 256 columns.
struct Scorer {
  ThreadRows rows;
  Softmax softmax;
  uint32_t weights[kTileTokens / 16][4];  // left factors, in use until wait_products

  // Starts the scores of a tile.
  __device__ __forceinline__ void score(Shared& shared, uint32_t n, float (&scores)[32]) const {
    const uint32_t stage = n % kStages;
    const uint32_t phase = n / kStages & 1;
    const uint64_t q = describe_rows(shared_address(shared.q));
    const uint64_t k = describe_rows(shared_address(shared.kv[stage]));
    wait_phase(shared_address(&shared.kv_full[stage][0]), phase);
    begin_products();
#pragma unroll
    for (int i = 0; i < kChunks * 4; ++i) {
      if (i == kLeftChunks * 4) {
        wait_phase(shared_address(&shared.kv_full[stage][1]), phase);
        begin_products();
      }
      const auto offset = static_cast<uint32_t>(i / 4 * kChunkBytes + i % 4 * 32);
      multiply_rows_64(scores, advance(q, offset), advance(k, offset), i > 0);
    }
    commit_products();
  }

  __device__ __forceinline__ void round_weights(const float (&scores)[32]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      weights[i / 4][i % 4] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
    }
  }

  // For the other warpgroup.
  __device__ __forceinline__ void share_weights(Shared& shared, const float (&rescale)[2]) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const uint32_t to = shared_address(shared.weights) + static_cast<uint32_t>(lane % 4 * 4);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      store_shared_4(to + swizzled_offset(rows.row + i % 2 * 8, i / 2), weights[i / 4][i % 4]);
    }
    if (lane % 4 == 0) {
      shared.rescale[rows.row] = rescale[0];
      shared.rescale[rows.row + 8] = rescale[1];
    }
  }

  // For the end of a segment: what the sums are to be multiplied by; LSE, or what merging needs.
  __device__ __forceinline__ void finish(const Params& params, const Destination& destination,
                                         Shared& shared, float (&factors)[2]) const {
    const bool writes = threadIdx.x % 4 == 0;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float sum = softmax.total(half);
      const int32_t row = rows.row + half * 8;
      factors[half] = 1.0F;
      if (destination.is_final) {
        factors[half] = sum > 0.0F ? 1.0F / sum : 0.0F;
        if (writes && rows.pair[half] >= 0) {
          params.args.lse[rows.pair[half]] =
              sum > 0.0F ? (softmax.row_max[half] + log2f(sum)) * kLn2 : kNothingSeen;
        }
      } else if (writes) {
        params.workspace.partial_max[destination.partial + row] = softmax.row_max[half];
        params.workspace.partial_sum[destination.partial + row] = sum;
      }
      if (writes) shared.factors[row] = factors[half];
    }
  }

  __device__ __forceinline__ void run(const Params& params, SegmentWalk walk, Shared& shared) {
    float acc[kHalfDims / 2];
    uint32_t n = 0;
    for (uint32_t segment = 0; walk.left > 0; ++segment, walk.next(params)) {
      const Destination destination = find_destination(walk);
      const PrefillItem item = params.args.items[walk.unit.item];
      rows.start(params, walk.unit);
      softmax.start();
      clear(acc);
      float factors[2] = {0.0F, 0.0F};
      const int32_t count = walk.count();
      wait_phase(shared_address(&shared.q_full), segment & 1);
      for (int32_t tile = 0; tile < count; ++tile, ++n) {
        const uint32_t stage = n % kStages;
        const int32_t position = find_position(params.args, item, walk.tile + tile);
        float scores[32];
        score(shared, n, scores);
        wait_products<1>();  // the sums of the tile before
        pin_weights();
        if (tile > 0) warp_arrive(shared.kv_free[(n - 1) % kStages][0]);
        wait_products<0>();
        pin(scores);
        pin(acc);
        if (tile + 1 == count) warp_arrive(shared.q_free);
        warp_arrive(shared.scored);
        hide_later(rows, position, scores);
        float rescale[2];
        softmax.weigh(params.scale_log2, scores, rescale);
        round_weights(scores);
        rescale_columns(acc, rescale);
        pin(acc);
        begin_products();
        const uint64_t v = describe_depth(shared_address(shared.kv[stage]), kChunkBytes);
#pragma unroll
        for (uint32_t i = 0; i < kTileTokens / 16; ++i) {
          multiply_depth_256(acc, weights[i], advance(v, i * 16 * kChunkRowBytes));
        }
        commit_products();
        if (n > 0) wait_phase(shared_address(&shared.weights_free), (n - 1) & 1);
        share_weights(shared, rescale);
        if (tile + 1 == count) finish(params, destination, shared, factors);
        publish_shared();
        arrive(shared_address(&shared.weights_full));
      }
      wait_products<0>();
      pin_weights();
      pin(acc);
      warp_arrive(shared.kv_free[(n - 1) % kStages][0]);
      write_columns(params, rows, destination, 0, acc, factors);
    }
  }

  __device__ __forceinline__ void pin_weights() {
#pragma unroll
    for (int i = 0; i < kTileTokens / 16; ++i) pin(weights[i]);
  }
};

// Warpgroup 1: the other 256 columns. With `kGivesWay` it leaves the tensor cores to the scores of
// the next tile, and works while those are weighed; a tile of codes takes the place of the one
// before too late for that.
template <bool kGivesWay>
__device__ __forceinline__ void add_right(const Params& params, SegmentWalk walk, Shared& shared) {
  float acc[kHalfDims / 2];
  uint32_t n = 0;
  for (; walk.left > 0; walk.next(params)) {
    const Destination destination = find_destination(walk);
    ThreadRows rows;
    rows.start(params, walk.unit);
    clear(acc);
    float factors[2] = {0.0F, 0.0F};
    const int32_t count = walk.count();
    for (int32_t tile = 0; tile < count; ++tile, ++n) {
      const uint32_t stage = n % kStages;
      wait_phase(shared_address(&shared.weights_full), n & 1);
      const float rescale[2] = {shared.rescale[rows.row], shared.rescale[rows.row + 8]};
      if (tile + 1 == count) {
        factors[0] = shared.factors[rows.row];
        factors[1] = shared.factors[rows.row + 8];
      }
      rescale_columns(acc, rescale);
      wait_phase(shared_address(&shared.kv_full[stage][1]), n / kStages & 1);
      if (kGivesWay && tile + 1 < count) wait_phase(shared_address(&shared.scored), (n + 1) & 1);
      pin(acc);
      begin_products();
      const uint64_t p = describe_rows(shared_address(shared.weights));
      const uint64_t v =
          describe_depth(shared_address(shared.kv[stage]) + kLeftChunks * kChunkBytes, kChunkBytes);
#pragma unroll
      for (uint32_t i = 0; i < kTileTokens / 16; ++i) {
        multiply_depth_256(acc, advance(p, i * 32), advance(v, i * 16 * kChunkRowBytes), true);
      }
      commit_products();
      wait_products<0>();
      pin(acc);
      warp_arrive(shared.weights_free);
      warp_arrive(shared.kv_free[stage][1]);
    }
    write_columns(params, rows, destination, kHalfDims, acc, factors);
  }
}

// Fills shared memory: the warps of the third warpgroup.
template <CacheType kType>
__device__ __forceinline__ void load(const Params& params, const SegmentWalk& walk, Shared& shared,
                                     int warp) {
  if constexpr (kType == CacheType::kBf16) {
    give_registers<kProducerRegisters>();
    if (warp == 0) load_tiles(params, walk, shared);
  } else {
    give_registers<kSpreaderRegisters>();
    const CodeCache cache = {.map = params.tokens,
                             .codes = static_cast<const uint8_t*>(params.args.cache),
                             .block_stride = params.args.block_stride,
                             .block_size = params.args.config.block_size};
    const CodeWarp codes{.cache = cache,
                         .shared = shared.codes,
                         .warp = warp,
                         .lane = static_cast<int32_t>(threadIdx.x) % 32};
    CodeLoader loader{.params = params, .shared = shared, .codes = codes, .count = walk.left};
    if (walk.left == 0) return;
    loader.start(walk);
    loader.work();
  }
}

template <CacheType kType>
__global__ void __launch_bounds__(kThreads, 1)
    attend_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(1024) uint8_t raw[];
  Shared& shared = *reinterpret_cast<Shared*>(raw);
  if (threadIdx.x == 0) {
    if (shared_address(raw) % 1024 != 0) __trap();
    prefetch_tensor_map(params.queries);
    prefetch_tensor_map(params.tokens);
    start_barriers(shared, kType == CacheType::kBf16 ? 1 : kCodeWarps);
  }
  __syncthreads();
  SegmentWalk walk;
  walk.start(params, params.workspace.stretches[blockIdx.x]);
  // Known to be the same in all lanes.
  const int warp = __shfl_sync(0xffffffffU, static_cast<int>(threadIdx.x) / 32, 0);
  if (warp >= kProducerWarp) {
    load<kType>(params, walk, shared, warp - kProducerWarp);
  } else if (warp < kGroupWarps) {
    take_registers<kScorerRegisters>();
    Scorer scorer;
    scorer.run(params, walk, shared);
  } else {
    take_registers<kType == CacheType::kBf16 ? kAdderRegisters : kAdderRegistersBesideSpreaders>();
    add_right<kType == CacheType::kBf16>(params, walk, shared);
  }
}

}  // namespace
}  // namespace nanocp::cuda
