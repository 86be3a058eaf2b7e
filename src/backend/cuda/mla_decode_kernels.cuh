// Device code of mla_decode.cu: the attend kernel. A block of 8 warps takes tiles of 32 tokens for
// 16 heads. For the scores each warp has half of the tokens and a quarter of the 576 dims; for the
// softmax two of the heads, a token a lane; for the sums
// 64 of the 512 values. Two blocks share a multiprocessor, so that one computes while the other
// waits; tiles arrive through asynchronous copies that run on across segments.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/device/mma.cuh"
#include "backend/cuda/mla_decode.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kTileTokens = 32;
constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kBlocksPerSm = 2;
constexpr int kStages = 2;
constexpr int kHeads = 16;    // rows of a tensor-core product
constexpr int kQuarters = 4;  // of the dims, in the scores
constexpr int kSteps = kLatentKeyDim / 16 / kQuarters;
constexpr int kPieces = kTileTokens / 8 / 2;       // groups of 8 tokens of a warp, in the scores
constexpr int kWarpHeads = kHeads / kWarps;        // in the softmax
constexpr int kWarpDims = kLatentDim / kWarps;     // in the sums
constexpr int kWarpTokens = kTileTokens / kWarps;  // fetched
constexpr int kChunks = kLatentKeyDim / 8;         // 16-byte pieces of a token
constexpr int kRowBytes = kLatentKeyDim * 2;
constexpr int kStageBytes = kTileTokens * kRowBytes;
constexpr int kScoreStride = kTileTokens + 4;    // floats, against bank conflicts
constexpr int kWeightStride = kTileTokens + 8;   // bf16, likewise
constexpr int kQueryStride = kLatentKeyDim + 8;  // bf16, likewise
constexpr int kGridMax = 512;
constexpr int kMinStretchTiles = 2;  // less is not worth a partial result
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;

struct RowSpan {
  int32_t token_begin;  // local tokens that the row sees
  int32_t token_end;
  int32_t tile_begin;  // of the row's first tile, counted per group of heads over all rows
  int32_t num_tiles;   // per group of heads
};

// Where a block of the attend grid begins, and how many tiles it takes from there.
struct Stretch {
  int32_t row;
  int32_t group;  // of 16 heads
  int32_t tile;   // of the (row, group) segment
  int32_t count;
};

// A segment that begins in a block and ends in a later one; count 0: none does.
struct SplitSegment {
  int32_t row;
  int32_t group;
  int32_t count;  // blocks that share it
};

struct Workspace {
  Stretch* stretches;    // [grid]
  SplitSegment* splits;  // [grid]
  RowSpan* spans;        // [max_rows]
  float* partial_out;    // [2 * grid, kHeads, 512]
  float* partial_max;    // [2 * grid, kHeads], base 2
  float* partial_sum;    // [2 * grid, kHeads]
};

struct Params {
  MlaDecodeArgs args;
  Workspace workspace;
  int32_t groups;
  int32_t grid;
  float scale_log2;
};

struct Shared {
  alignas(128) uint8_t stages[kStages][kStageBytes];
  alignas(16) __nv_bfloat16 q[kHeads * kQueryStride];
  alignas(16) float scores[kQuarters][kHeads][kScoreStride];  // each of its quarter of the dims
  alignas(16) __nv_bfloat16 weights[kHeads * kWeightStride];
  float rescale[kHeads];  // of what has been added up so far
  float maxima[kHeads];   // at the end of a segment
  float sums[kHeads];
};

// A place on the line of tiles.
struct TileCursor {
  int32_t row;
  int32_t group;
  int32_t tile;
  int32_t left;  // tiles of this block's stretch from here on
  RowSpan span;

  __device__ void start(const Params& params, const Stretch& stretch) {
    row = stretch.row;
    group = stretch.group;
    tile = stretch.tile;
    left = stretch.count;
    span = params.workspace.spans[row];
  }
  __device__ void next(const Params& params) {
    if (--left <= 0) return;
    if (++tile < span.num_tiles) return;
    tile = 0;
    if (++group < params.groups) return;
    group = 0;
    do {
      span = params.workspace.spans[++row];
    } while (span.num_tiles == 0);
  }
  __device__ int32_t first_token() const {
    return (span.token_begin / kTileTokens + tile) * kTileTokens;
  }
};

__device__ inline uint32_t chunk_offset(int token, int chunk) {
  return static_cast<uint32_t>(token * kRowBytes + ((chunk ^ (token & 7)) * 16));
}

// Runs ahead of the computation and asks for tiles. The block of the tile to come is looked up one
// tile earlier, so that nobody waits for the tables.
struct Fetcher {
  TileCursor cursor;
  int32_t row;          // that the two below are of
  int32_t block_begin;  // its blocks in the table
  int32_t num_blocks;
  int32_t block;  // of this warp's tokens of the cursor's tile; -1: there is none

  __device__ void start(const Params& params, const TileCursor& from) {
    cursor = from;
    row = -1;
    look_up(params);
  }

  __device__ void look_up(const Params& params) {
    if (cursor.left <= 0) return;
    const MlaDecodeArgs& args = params.args;
    if (row != cursor.row) {
      row = cursor.row;
      block_begin = args.rows[row].block_begin;
      num_blocks = args.rows[row].num_blocks;
    }
    const int32_t at = first_token() / args.config.block_size;
    block = at < num_blocks ? args.blocks[block_begin + at] : -1;
  }
  __device__ int32_t first_token() const {
    return cursor.first_token() + static_cast<int32_t>(threadIdx.x) / 32 * kWarpTokens;
  }

  // Asks for this warp's tokens of the tile, which never straddle blocks, and moves on. Without a
  // tile left only the group of copies is closed.
  __device__ void fetch(const Params& params, uint32_t stage) {
    if (cursor.left > 0) {
      const int warp = static_cast<int>(threadIdx.x) / 32;
      const int lane = static_cast<int>(threadIdx.x) % 32;
      const int32_t token = first_token();
      const auto* from =
          static_cast<const __nv_bfloat16*>(params.args.cache) +
          max(block, 0) * params.args.block_stride +
          static_cast<int64_t>(token % params.args.config.block_size) * kLatentKeyDim;
      const int32_t first_seen = cursor.span.token_begin - token;
      const int32_t end_seen = block >= 0 ? cursor.span.token_end - token : 0;
      int t = 0;  // the piece is `chunk` of the warp's token t
      int chunk = lane;
#pragma unroll
      for (int i = 0; i < kWarpTokens * kChunks / 32; ++i) {
        const bool seen = t >= first_seen && t < end_seen;
        copy_16_async(stage + chunk_offset(warp * kWarpTokens + t, chunk),
                      from + (i * 32 + lane) * 8, seen);
        chunk += 32;
        if (chunk >= kChunks) {
          chunk -= kChunks;
          ++t;
        }
      }
      cursor.next(params);
      look_up(params);
    }
    commit_copies();
  }
};

// The running softmax of 16 heads. Of the sums a thread holds rows lane / 4 and lane / 4 + 8.
struct State {
  float acc[kWarpDims / 8][4];
  float row_max[kWarpHeads];  // base 2, of this warp's heads
  float row_sum[kWarpHeads];  // of this lane's tokens

  // Brings the segment's queries to shared memory. All threads; a barrier follows before score().
  __device__ void start(const Params& params, const TileCursor& cursor, Shared& shared) {
    const int32_t num_heads = params.args.config.num_heads;
    const int32_t first = cursor.group * kHeads;
    const auto* q = static_cast<const __nv_bfloat16*>(params.args.q) +
                    (static_cast<int64_t>(params.args.rows[cursor.row].row) * num_heads + first) *
                        kLatentKeyDim;
    for (int i = static_cast<int>(threadIdx.x); i < kHeads * kChunks; i += kThreads) {
      const int head = i / kChunks;
      const int chunk = i % kChunks;
      uint4 value = make_uint4(0, 0, 0, 0);
      if (first + head < num_heads) {
        value = reinterpret_cast<const uint4*>(q + head * kLatentKeyDim)[chunk];
      }
      reinterpret_cast<uint4*>(shared.q + head * kQueryStride)[chunk] = value;
    }
#pragma unroll
    for (int i = 0; i < kWarpDims / 8; ++i) {
      for (float& value : acc[i]) value = 0.0F;
    }
#pragma unroll
    for (int i = 0; i < kWarpHeads; ++i) {
      row_max[i] = kNothingSeen;
      row_sum[i] = 0.0F;
    }
  }

  // Products of this warp's quarter of the dims with its half of the tokens, to shared memory.
  __device__ void score(uint32_t stage, Shared& shared) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int quarter = static_cast<int>(threadIdx.x) / 32 % kQuarters;
    const int first = static_cast<int>(threadIdx.x) / 32 / kQuarters * kPieces * 8;
    const uint32_t q =
        shared_address(shared.q + lane % 16 * kQueryStride + lane / 16 * 8 + quarter * kSteps * 16);
    float sums[kPieces][4] = {};
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      uint32_t a[4];
      load_matrices(a, q + static_cast<uint32_t>(step * 32));
      uint32_t k[4];  // both halves of the 16 dims, for two groups of 8 tokens
      const int token = first + lane / 16 * 8 + lane % 8;
      load_matrices(k, stage + chunk_offset(token, (quarter * kSteps + step) * 2 + lane / 8 % 2));
      multiply_add(sums[0], a, k[0], k[1]);
      multiply_add(sums[1], a, k[2], k[3]);
    }
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float* to = &shared.scores[quarter][lane / 4 + half * 8][first + piece * 8 + lane % 4 * 2];
        *reinterpret_cast<float2*>(to) = {sums[piece][2 * half], sums[piece][2 * half + 1]};
      }
    }
  }

  // The weights of all tokens for this warp's heads, a token a lane.
  __device__ void weigh(const Params& params, const TileCursor& cursor, Shared& shared) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int32_t token = cursor.first_token() + lane;
    const bool seen = token >= cursor.span.token_begin && token < cursor.span.token_end;
#pragma unroll
    for (int i = 0; i < kWarpHeads; ++i) {
      const int head = warp * kWarpHeads + i;
      float score = 0.0F;
#pragma unroll
      for (int quarter = 0; quarter < kQuarters; ++quarter) {
        score += shared.scores[quarter][head][lane];
      }
      score = seen ? score * params.scale_log2 : kNothingSeen;
      float largest = score;
#pragma unroll
      for (int distance = 16; distance > 0; distance /= 2) {
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
      }
      const float new_max = fmaxf(row_max[i], largest);
      // A row that has seen nothing keeps -infinity; 0 stands in to avoid inf - inf.
      const float base = new_max == kNothingSeen ? 0.0F : new_max;
      const float rescale = exp2f(row_max[i] - base);
      const float weight = exp2f(score - base);
      row_max[i] = new_max;
      row_sum[i] = row_sum[i] * rescale + weight;
      shared.weights[head * kWeightStride + lane] = __float2bfloat16(weight);
      if (lane == 0) shared.rescale[head] = rescale;
    }
  }

  __device__ void add_values(uint32_t stage, const Shared& shared) {
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float rescale[2] = {shared.rescale[lane / 4], shared.rescale[lane / 4 + 8]};
#pragma unroll
    for (int i = 0; i < kWarpDims / 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) acc[i][j] *= rescale[j / 2];
    }
    const uint32_t weights = shared_address(shared.weights);
#pragma unroll
    for (int step = 0; step < kTileTokens / 16; ++step) {
      uint32_t a[4];
      load_matrices(
          a, weights +
                 static_cast<uint32_t>(lane % 16 * kWeightStride + step * 16 + lane / 16 * 8) * 2);
#pragma unroll
      for (int n = 0; n < kWarpDims / 16; ++n) {
        uint32_t v[4];  // 16 tokens x 16 dims
        load_matrices_transposed(
            v, stage +
                   chunk_offset(step * 16 + lane % 16, warp * (kWarpDims / 8) + n * 2 + lane / 16));
        multiply_add(acc[2 * n], a, v[0], v[1]);
        multiply_add(acc[2 * n + 1], a, v[2], v[3]);
      }
    }
  }
};

// Where the result of the present segment goes.
struct Destination {
  bool is_final;
  int32_t slot;  // of the partial result otherwise
};

// Brings the warps' sums together and writes the segment's result. All threads of the block.
__device__ inline void finish_segment(const Params& params, const TileCursor& cursor,
                                      const Destination& destination, State& state,
                                      Shared& shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kWarpHeads; ++i) {
    float sum = state.row_sum[i];
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
    if (lane == 0) {
      shared.sums[warp * kWarpHeads + i] = sum;
      shared.maxima[warp * kWarpHeads + i] = state.row_max[i];
    }
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + half * 8;
    if (cursor.group * kHeads + head >= params.args.config.num_heads) continue;
    const float sum = shared.sums[head];
    const float largest = shared.maxima[head];
    float* out;
    float factor = 1.0F;
    if (destination.is_final) {
      const int64_t at =
          static_cast<int64_t>(params.args.rows[cursor.row].row) * params.args.config.num_heads +
          cursor.group * kHeads + head;
      out = params.args.out + at * kLatentDim;
      factor = sum > 0.0F ? 1.0F / sum : 0.0F;
      if (warp == 0 && lane % 4 == 0) {
        params.args.lse[at] = sum > 0.0F ? (largest + log2f(sum)) * kLn2 : kNothingSeen;
      }
    } else {
      const int64_t at = static_cast<int64_t>(destination.slot) * kHeads + head;
      out = params.workspace.partial_out + at * kLatentDim;
      if (warp == 0 && lane % 4 == 0) {
        params.workspace.partial_max[at] = largest;
        params.workspace.partial_sum[at] = sum;
      }
    }
#pragma unroll
    for (int i = 0; i < kWarpDims / 8; ++i) {
      const float2 pair = {state.acc[i][2 * half] * factor, state.acc[i][2 * half + 1] * factor};
      *reinterpret_cast<float2*>(out + warp * kWarpDims + i * 8 + (lane % 4) * 2) = pair;
    }
  }
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    attend_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(128) uint8_t raw[];
  Shared& shared = *reinterpret_cast<Shared*>(raw);
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
  const Stretch stretch = params.workspace.stretches[blockIdx.x];
  if (stretch.count == 0) return;
  const uint32_t stages = shared_address(shared.stages);
  TileCursor reader;
  reader.start(params, stretch);
  Fetcher fetcher;
  fetcher.start(params, reader);
  for (int stage = 0; stage < kStages; ++stage) fetcher.fetch(params, stages + stage * kStageBytes);
  State state;
  bool starts_here = reader.tile == 0;
  state.start(params, reader, shared);
  for (int stage = 0; reader.left > 0; stage = (stage + 1) % kStages) {
    const uint32_t tile = stages + stage * kStageBytes;
    wait_copies<kStages - 1>();
    __syncthreads();  // the tile is here for all warps
    state.score(tile, shared);
    __syncthreads();
    state.weigh(params, reader, shared);
    __syncthreads();
    state.add_values(tile, shared);
    __syncthreads();  // all warps have left the tile
    fetcher.fetch(params, tile);
    const bool ends_here = reader.tile + 1 == reader.span.num_tiles;
    if (ends_here || reader.left == 1) {
      const int32_t slot = static_cast<int32_t>(blockIdx.x) * 2 + (starts_here ? 1 : 0);
      finish_segment(params, reader, {starts_here && ends_here, slot}, state, shared);
      reader.next(params);
      if (reader.left > 0) state.start(params, reader, shared);
      starts_here = true;
    } else {
      reader.next(params);
    }
  }
}

}  // namespace
}  // namespace nanocp::cuda
