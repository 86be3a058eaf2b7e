// Device code of attention_decode.cu: the parameters of its kernels and the attend kernel.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/device/mma.cuh"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kTileTokens = 64;
constexpr int kWarps = 4;
constexpr int kWarpTokens = kTileTokens / kWarps;  // 16, the depth of one tensor-core product
constexpr int kThreads = 32 * kWarps;
constexpr int kStages = 3;
constexpr int kBlocksPerSm = 2;
constexpr int kHeads = 16;  // rows of a tensor-core product; a group is padded to it
constexpr int kScheduleThreads = 1024;
constexpr int kMergeThreads = 256;
constexpr int kGridMax = 512;        // blocks of the attend grid
constexpr int kMinStretchTiles = 2;  // less is not worth a partial result
constexpr float kNothingSeen = -INFINITY;
constexpr float kLn2 = 0.6931471805599453F;
constexpr float kLog2E = 1.4426950408889634F;

// Local token range [token_begin, token_end) of a row in its shard, and its tiles in the line.
struct RowSpan {
  int32_t token_begin;
  int32_t token_end;
  int32_t tile_begin;  // of the row's first tile, counted in tiles per head over all rows
  int32_t num_tiles;   // per head
};

// Where a block of the attend grid begins, and how many tiles it takes from there; with copies of
// what belongs to the first row, so that the block needs no further tables to begin.
struct Stretch {
  int32_t row;  // index in rows and spans
  int32_t kv_head;
  int32_t tile;  // of the (row, KV head) segment
  int32_t count;
  RowSpan span;
  AttentionRow info;
};

// A segment that begins in a block of the attend grid and ends in a later one; count 0: none does.
struct SplitSegment {
  int32_t row;
  int32_t kv_head;
  int32_t count;  // blocks that share it
};

struct Workspace {
  Stretch* stretches;    // [grid]
  SplitSegment* splits;  // [grid]
  RowSpan* spans;        // [max_rows]
  float* partial_out;    // [2 * grid, kHeads, head_dim]
  float* partial_max;    // [2 * grid, kHeads], base 2
  float* partial_sum;    // [2 * grid, kHeads]
};

struct Params {
  AttentionDecodeArgs args;
  Workspace workspace;
  int32_t group;  // query heads per KV head
  int32_t grid;
  float scale_log2;
};

// Whether the row's query and part of its KV come from another instance.
__device__ inline bool is_remote(const Params& params, const AttentionRow& row) {
  const ExchangeView& exchange = params.args.exchange;
  return exchange.num_instances > 1 && row.source >= 0 && row.source != exchange.self;
}

// One thread: until another instance's queries and what came with them have arrived. After a wait
// that failed the step computes on stale data and is thrown away by the host.
__device__ inline void wait_for_source(const Params& params, int32_t source) {
  const ExchangeView& exchange = params.args.exchange;
  wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kQuery, source),
                number_of(params.args.epoch), exchange.wait, WaitPurpose::kQuery, source);
}

// A place on the line of tiles.
struct TileCursor {
  int32_t row;  // index in rows and spans
  int32_t kv_head;
  int32_t tile;  // of the segment, from 0
  int32_t left;  // tiles of this block's stretch from here on
  RowSpan span;
  AttentionRow info;

  __device__ void start(const Params& params, const Stretch& stretch) {
    row = stretch.row;
    kv_head = stretch.kv_head;
    tile = stretch.tile;
    left = stretch.count;
    span = stretch.span;
    info = stretch.info;
  }
  __device__ void next(const Params& params) {
    if (--left <= 0) return;
    if (++tile < span.num_tiles) return;
    tile = 0;
    if (++kv_head < params.args.config.num_kv_heads) return;
    kv_head = 0;
    do {
      span = params.workspace.spans[++row];
    } while (span.num_tiles == 0);
    info = params.args.rows[row];
  }
  // Local token where the tile starts.
  __device__ int32_t first_token() const {
    return (span.token_begin / kTileTokens + tile) * kTileTokens;
  }
};

// Shared memory rows of kDim bf16; 16-byte chunks are permuted so that matrix loads meet no bank
// conflicts.
template <int kDim>
__device__ inline uint32_t chunk_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * kDim * 2 + ((chunk ^ (row & 7)) * 16));
}

template <int kDim>
struct SharedLayout {
  static constexpr int kTileBytes = kWarpTokens * kDim * 2;
  static constexpr int kStageBytes = 2 * kTileBytes;  // K and V of one warp
  static constexpr int kPipelineBytes = kWarps * kStages * kStageBytes;
  static constexpr int kStatsBytes = kWarps * kHeads * 2 * 4;
  static constexpr int kExchangeBytes = 2 * kHeads * kDim * 4;  // two warps' accumulators
  static constexpr int kTotalBytes = kPipelineBytes + kStatsBytes + kExchangeBytes;
};

// Asks for this warp's 16 tokens of the cursor's tile.
template <int kDim>
__device__ void fetch_tile(const Params& params, const TileCursor& cursor, uint32_t stage) {
  constexpr int kChunks = kDim / 8;
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const AttentionDecodeArgs& args = params.args;
  const int32_t token = cursor.first_token() + warp * kWarpTokens;
  const int32_t size = args.config.block_size;
  const int32_t block_at = token / size;
  if (block_at < cursor.info.num_blocks) {  // 16 tokens never straddle blocks
    const int64_t base = args.blocks[cursor.info.block_begin + block_at] * args.block_stride +
                         cursor.kv_head * args.head_stride +
                         static_cast<int64_t>(token % size) * kDim;
    const auto* k = static_cast<const __nv_bfloat16*>(args.k) + base;
    const auto* v = static_cast<const __nv_bfloat16*>(args.v) + base;
#pragma unroll
    for (int i = 0; i < kWarpTokens * kChunks / 32; ++i) {
      const int at = i * 32 + lane;
      const int t = at / kChunks;
      const int chunk = at % kChunks;
      const bool seen = token + t >= cursor.span.token_begin && token + t < cursor.span.token_end;
      const uint32_t to = stage + chunk_offset<kDim>(t, chunk);
      copy_16_async(to, k + t * kDim + chunk * 8, seen);
      copy_16_async(to + SharedLayout<kDim>::kTileBytes, v + t * kDim + chunk * 8, seen);
    }
  }
}

// The running softmax of one warp: 16 query heads against its share of a segment's tokens. A thread
// holds rows lane / 4 and lane / 4 + 8.
template <int kDim>
struct WarpState {
  uint32_t q[kDim / 16][4];
  float acc[kDim / 8][4];
  float row_max[2];  // base 2
  float row_sum[2];  // of this thread's columns only

  __device__ void start(const Params& params, const TileCursor& cursor) {
    const int lane = threadIdx.x % 32;
    const auto* q_row = static_cast<const __nv_bfloat16*>(params.args.q) +
                        (static_cast<int64_t>(cursor.info.row) * params.args.config.num_heads +
                         cursor.kv_head * params.group) *
                            kDim;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int head = lane / 4 + (part % 2) * 8;
        const int col = step * 16 + (part / 2) * 8 + (lane % 4) * 2;
        q[step][part] = head < params.group
                            ? *reinterpret_cast<const uint32_t*>(q_row + head * kDim + col)
                            : 0U;
      }
    }
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i) {
      for (float& value : acc[i]) value = 0.0F;
    }
    row_max[0] = row_max[1] = kNothingSeen;
    row_sum[0] = row_sum[1] = 0.0F;
  }

  // `first` is the local token of the warp's first column.
  __device__ void add_tile(const Params& params, const TileCursor& cursor, uint32_t stage,
                           int32_t first) {
    float scores[2][4] = {};
    score(stage, scores);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < 2; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int32_t token = first + n * 8 + (lane % 4) * 2 + i % 2;
        const bool seen = token >= cursor.span.token_begin && token < cursor.span.token_end;
        scores[n][i] = seen ? scores[n][i] * params.scale_log2 : kNothingSeen;
      }
    }
    uint32_t weights[4];
    update_softmax(scores, weights);
    add_values(stage + SharedLayout<kDim>::kTileBytes, weights);
  }

  __device__ void score(uint32_t stage, float (&scores)[2][4]) const {
    const int lane = threadIdx.x % 32;
    const int token = lane % 8 + (lane / 16) * 8;
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      uint32_t k[4];  // tokens 0-7 and 8-15, each with both halves of the 16 dims
      load_matrices(k, stage + chunk_offset<kDim>(token, step * 2 + (lane / 8) % 2));
      multiply_add(scores[0], q[step], k[0], k[1]);
      multiply_add(scores[1], q[step], k[2], k[3]);
    }
  }

  __device__ void update_softmax(float (&scores)[2][4], uint32_t (&weights)[4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = fmaxf(fmaxf(scores[0][2 * half], scores[0][2 * half + 1]),
                            fmaxf(scores[1][2 * half], scores[1][2 * half + 1]));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
      const float new_max = fmaxf(row_max[half], largest);
      // A row that has seen nothing keeps -infinity; 0 stands in to avoid inf - inf.
      const float base = new_max == kNothingSeen ? 0.0F : new_max;
      const float rescale = exp2f(row_max[half] - base);
      row_max[half] = new_max;
      row_sum[half] *= rescale;
#pragma unroll
      for (int i = 0; i < kDim / 8; ++i) {
        acc[i][2 * half] *= rescale;
        acc[i][2 * half + 1] *= rescale;
      }
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const float low = exp2f(scores[n][2 * half] - base);
        const float high = exp2f(scores[n][2 * half + 1] - base);
        row_sum[half] += low + high;
        weights[2 * n + half] = pack_bf16(low, high);
      }
    }
  }

  __device__ void add_values(uint32_t v, const uint32_t (&weights)[4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < kDim / 16; ++n) {
      uint32_t values[4];  // 16 tokens x 16 dims
      load_matrices_transposed(values, v + chunk_offset<kDim>(lane % 16, n * 2 + lane / 16));
      multiply_add(acc[2 * n], weights, values[0], values[1]);
      multiply_add(acc[2 * n + 1], weights, values[2], values[3]);
    }
  }
};

// Where the result of the present segment goes.
struct Destination {
  bool is_final;
  int32_t slot;  // of the partial result otherwise
};

// Brings the four warps' states together and writes the segment's result. All threads of the block.
template <int kDim>
__device__ void finish_segment(const Params& params, const TileCursor& cursor,
                               const Destination& destination, WarpState<kDim>& state,
                               uint8_t* shared) {
  using Layout = SharedLayout<kDim>;
  auto* stats = reinterpret_cast<float*>(shared + Layout::kPipelineBytes);
  auto* exchange = reinterpret_cast<float*>(shared + Layout::kPipelineBytes + Layout::kStatsBytes);
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  float scale[2];
  float block_max[2];
  float block_sum[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = state.row_sum[half];
    sum += __shfl_xor_sync(0xffffffffU, sum, 1);
    sum += __shfl_xor_sync(0xffffffffU, sum, 2);
    const int head = lane / 4 + half * 8;
    if (lane % 4 == 0) {
      stats[(warp * kHeads + head) * 2] = state.row_max[half];
      stats[(warp * kHeads + head) * 2 + 1] = sum;
    }
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + half * 8;
    block_max[half] = kNothingSeen;
    for (int w = 0; w < kWarps; ++w) {
      block_max[half] = fmaxf(block_max[half], stats[(w * kHeads + head) * 2]);
    }
    const float base = block_max[half] == kNothingSeen ? 0.0F : block_max[half];
    block_sum[half] = 0.0F;
    for (int w = 0; w < kWarps; ++w) {
      block_sum[half] +=
          stats[(w * kHeads + head) * 2 + 1] * exp2f(stats[(w * kHeads + head) * 2] - base);
    }
    scale[half] = exp2f(state.row_max[half] - base);
  }
  // Two rounds of pairs: 3 -> 1 and 2 -> 0, then 1 -> 0.
  for (int giver = kWarps / 2; giver >= 1; giver /= 2) {
    if (warp >= giver && warp < 2 * giver) {
      float* to = exchange + (warp - giver) * kHeads * kDim;
      for (int i = 0; i < kDim / 8; ++i) {
        for (int j = 0; j < 4; ++j) {
          to[(i * 4 + j) * 32 + lane] = state.acc[i][j] * scale[j / 2];
        }
      }
    }
    __syncthreads();
    if (warp < giver) {
      const float* from = exchange + warp * kHeads * kDim;
      for (int i = 0; i < kDim / 8; ++i) {
        for (int j = 0; j < 4; ++j) {
          state.acc[i][j] = state.acc[i][j] * scale[j / 2] + from[(i * 4 + j) * 32 + lane];
        }
      }
      scale[0] = scale[1] = 1.0F;
    }
    __syncthreads();
  }
  if (warp != 0) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int head = lane / 4 + half * 8;
    if (head >= params.group) continue;
    float* out;
    float factor = 1.0F;
    if (destination.is_final) {
      const int64_t at = static_cast<int64_t>(cursor.info.row) * params.args.config.num_heads +
                         cursor.kv_head * params.group + head;
      out = params.args.out + at * kDim;
      factor = block_sum[half] > 0.0F ? 1.0F / block_sum[half] : 0.0F;
      if (lane % 4 == 0) {
        params.args.lse[at] = block_sum[half] > 0.0F
                                  ? (block_max[half] + log2f(block_sum[half])) * kLn2
                                  : kNothingSeen;
      }
    } else {
      const int64_t at = static_cast<int64_t>(destination.slot) * kHeads + head;
      out = params.workspace.partial_out + at * kDim;
      if (lane % 4 == 0) {
        params.workspace.partial_max[at] = block_max[half];
        params.workspace.partial_sum[at] = block_sum[half];
      }
    }
    for (int i = 0; i < kDim / 8; ++i) {
      float2 pair = {state.acc[i][2 * half] * factor, state.acc[i][2 * half + 1] * factor};
      *reinterpret_cast<float2*>(out + i * 8 + (lane % 4) * 2) = pair;
    }
  }
}

// The copies of one warp's tokens, kStages - 1 tiles ahead of the products. They stop in front of a
// row of another instance that the block has not waited for; the last kStages - 1 groups are then
// empty, so that their number always tells what has landed.
template <int kDim>
struct Fetcher {
  TileCursor cursor;
  uint32_t pipeline;    // shared address of the warp's stages
  int32_t open_source;  // the other instance whose rows may be read; -1: none

  __device__ void fetch(const Params& params, int stage) {
    if (cursor.left > 0 && !is_closed(params)) {
      fetch_tile<kDim>(params, cursor, pipeline + stage * SharedLayout<kDim>::kStageBytes);
      cursor.next(params);
    }
    commit_copies();
  }
  __device__ void fill(const Params& params, int first_stage) {
    for (int i = 0; i < kStages - 1; ++i) fetch(params, (first_stage + i) % kStages);
  }
  // All threads of the block, with the same cursor, when nothing more is in flight.
  __device__ void open(const Params& params) {
    if (threadIdx.x == 0) wait_for_source(params, cursor.info.source);
    __syncthreads();
    open_source = cursor.info.source;
  }
  __device__ bool is_closed(const Params& params) const {
    return is_remote(params, cursor.info) && cursor.info.source != open_source;
  }
};

template <int kDim>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    attend_kernel(const __grid_constant__ Params params) {
  using Layout = SharedLayout<kDim>;
  extern __shared__ __align__(128) uint8_t shared[];
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
  const Stretch stretch = params.workspace.stretches[blockIdx.x];
  if (stretch.count == 0) return;

  const int warp = threadIdx.x / 32;
  TileCursor reader;
  reader.start(params, stretch);
  Fetcher<kDim> fetcher = {reader, shared_address(shared) + warp * kStages * Layout::kStageBytes,
                           -1};
  if (fetcher.is_closed(params)) fetcher.open(params);
  fetcher.fill(params, 0);
  WarpState<kDim> state;
  bool starts_here = reader.tile == 0;
  state.start(params, reader);
  for (int stage = 0; reader.left > 0; stage = (stage + 1) % kStages) {
    wait_copies<kStages - 2>();
    __syncwarp();
    fetcher.fetch(params, (stage + kStages - 1) % kStages);
    const int32_t first = reader.first_token() + warp * kWarpTokens;
    if (first < reader.span.token_end && first + kWarpTokens > reader.span.token_begin) {
      state.add_tile(params, reader, fetcher.pipeline + stage * Layout::kStageBytes, first);
    }
    const bool ends_here = reader.tile + 1 == reader.span.num_tiles;
    if (ends_here || reader.left == 1) {
      const int32_t slot = static_cast<int32_t>(blockIdx.x) * 2 + (starts_here ? 1 : 0);
      finish_segment<kDim>(params, reader, {starts_here && ends_here, slot}, state, shared);
      reader.next(params);
      if (reader.left > 0) {
        // The fetcher stopped exactly here, for all warps alike.
        if (reader.row == fetcher.cursor.row && fetcher.cursor.left > 0 &&
            fetcher.is_closed(params)) {
          fetcher.open(params);
          fetcher.fill(params, (stage + 1) % kStages);
        }
        state.start(params, reader);
      }
      starts_here = true;
    } else {
      reader.next(params);
    }
    __syncwarp();
  }
}

}  // namespace
}  // namespace nanocp::cuda
