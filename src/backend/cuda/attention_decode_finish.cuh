// Device code of attention_decode.cu: results of segments, the joining of those that several blocks
// share, and the attend kernel.
#pragma once

#include "backend/cuda/attention_decode_kernels.cuh"

namespace nanocp::cuda {
namespace {

// A block keeps its part of a segment that begins in it in its second slot, other parts in its
// first.
__device__ inline int32_t partial_slot(int32_t origin, int32_t part) {
  return 2 * (origin + part) + (part == 0 ? 1 : 0);
}

// Four values of one head, as a thread joins and writes them.
struct HeadValues {
  float4 sum;
  float2 stats;  // maximum (base 2) and sum of weights

  __device__ void add(const float4& other, const float2& other_stats) {
    const float largest = fmaxf(stats.x, other_stats.x);
    if (largest == kNothingSeen) return;
    const float keep = power_of_2(stats.x - largest);
    const float take = power_of_2(other_stats.x - largest);
    sum = {sum.x * keep + other.x * take, sum.y * keep + other.y * take,
           sum.z * keep + other.z * take, sum.w * keep + other.w * take};
    stats = {largest, stats.y * keep + other_stats.y * take};
  }
  // The same where the other's maximum is not above the own one.
  __device__ void add_below(const float4& other, const float2& other_stats) {
    if (stats.x == kNothingSeen) return;
    const float take = power_of_2(other_stats.x - stats.x);
    sum = {sum.x + other.x * take, sum.y + other.y * take, sum.z + other.z * take,
           sum.w + other.w * take};
    stats.y += other_stats.y * take;
  }
};

template <typename S>
struct HeadUnit {  // of the units that the threads of a block take in turn
  int head;
  int column;
  __device__ explicit HeadUnit(int unit) : head(unit * 4 / S::kDim), column(unit * 4 % S::kDim) {}
};

template <typename S>
__device__ void write_result(const Params& params, const TileCursor& cursor, const HeadUnit<S>& at,
                             const HeadValues& values) {
  const int64_t head = static_cast<int64_t>(cursor.info.row) * params.args.config.num_heads +
                       cursor.kv_head * params.group + at.head;
  const float sum = values.stats.y;
  const float factor = sum > 0.0F ? 1.0F / sum : 0.0F;
  *reinterpret_cast<float4*>(params.args.out + head * S::kDim + at.column) = {
      values.sum.x * factor, values.sum.y * factor, values.sum.z * factor, values.sum.w * factor};
  if (at.column != 0) return;
  params.args.lse[head] = sum > 0.0F ? (values.stats.x + log2f(sum)) * kLn2 : kNothingSeen;
}

template <typename S>
__device__ void write_partial(const Params& params, int32_t slot, const HeadUnit<S>& at,
                              const HeadValues& values) {
  const int64_t head = static_cast<int64_t>(slot) * kHeadsMax + at.head;
  __stcg(reinterpret_cast<float4*>(params.workspace.partial_out + head * S::kDim + at.column),
         values.sum);
  if (at.column == 0) __stcg(params.workspace.partial_stats + head, values.stats);
}

// All threads of the block, after their partial results are written: true in the block that finds
// all `count` parts there. The barriers make one thread's release and acquire the block's: no fence
// of every thread is needed.
__device__ inline bool is_last_part(int32_t* counter, int32_t count, int32_t* flag) {
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t before;
    asm volatile("atom.add.acq_rel.gpu.global.s32 %0, [%1], 1;"
                 : "=r"(before)
                 : "l"(counter)
                 : "memory");
    const bool last = before == count - 1;
    if (last) *counter = 0;
    *flag = last ? 1 : 0;
  }
  __syncthreads();
  return *flag != 0;
}

// Joins the parts of a segment, at most kParts. All of them are asked for at once. Read from the
// second-level cache: slots are written more than once.
template <typename S, int kParts>
__device__ void join_few(const Params& params, const TileCursor& cursor, const Sharing& sharing) {
  constexpr int kUnits = S::kHeads * S::kDim / 4 / kThreads;
  float4 sums[kUnits][kParts];
  float2 stats[kUnits][kParts];
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const HeadUnit<S> at(u * kThreads + static_cast<int>(threadIdx.x));
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      const int32_t slot = partial_slot(sharing.origin, min(i, sharing.parts - 1));
      const int64_t head = static_cast<int64_t>(slot) * kHeadsMax + min(at.head, params.group - 1);
      const float* from = params.workspace.partial_out + head * S::kDim + at.column;
      sums[u][i] = __ldcg(reinterpret_cast<const float4*>(from));
      stats[u][i] = __ldcg(params.workspace.partial_stats + head);
    }
  }
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const HeadUnit<S> at(u * kThreads + static_cast<int>(threadIdx.x));
    HeadValues values = {sums[u][0], stats[u][0]};
#pragma unroll
    for (int i = 1; i < kParts; ++i) {
      if (i < sharing.parts) values.add(sums[u][i], stats[u][i]);
    }
    if (at.head < params.group) write_result<S>(params, cursor, at, values);
  }
}

// The parts of 16 values of one head, joined by one warp: four lanes hold a part, and eight parts
// lie side by side.
template <typename S>
__device__ void join_piece(const Params& params, const TileCursor& cursor, const Sharing& sharing,
                           const HeadUnit<S>& at) {
  constexpr int kSideBySide = 32 / kPieceLanes;
  constexpr int kAtOnce = 8;  // of each lane
  const int lane = static_cast<int>(threadIdx.x) % 32;
  HeadValues values = {{0.0F, 0.0F, 0.0F, 0.0F}, {kNothingSeen, 0.0F}};
  for (int32_t first = 0; first < sharing.parts; first += kSideBySide * kAtOnce) {
    float4 sums[kAtOnce];
    float2 stats[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int32_t part = first + i * kSideBySide + lane / kPieceLanes;
      const int32_t slot = partial_slot(sharing.origin, min(part, sharing.parts - 1));
      const int64_t head = static_cast<int64_t>(slot) * kHeadsMax + at.head;
      const float* from = params.workspace.partial_out + head * S::kDim + at.column;
      sums[i] = __ldcg(reinterpret_cast<const float4*>(from));
      stats[i] = __ldcg(params.workspace.partial_stats + head);
      if (part >= sharing.parts) stats[i] = {kNothingSeen, 0.0F};
    }
    float largest = values.stats.x;
#pragma unroll
    for (const float2& other : stats) largest = fmaxf(largest, other.x);
#pragma unroll
    for (int distance = kPieceLanes; distance < 32; distance *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
    }
    values.add({0.0F, 0.0F, 0.0F, 0.0F}, {largest, 0.0F});
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) values.add_below(sums[i], stats[i]);
  }
#pragma unroll
  for (int distance = kPieceLanes; distance < 32; distance *= 2) {
    values.sum.x += __shfl_xor_sync(0xffffffffU, values.sum.x, distance);
    values.sum.y += __shfl_xor_sync(0xffffffffU, values.sum.y, distance);
    values.sum.z += __shfl_xor_sync(0xffffffffU, values.sum.z, distance);
    values.sum.w += __shfl_xor_sync(0xffffffffU, values.sum.w, distance);
    values.stats.y += __shfl_xor_sync(0xffffffffU, values.stats.y, distance);
  }
  if (lane < kPieceLanes) write_result<S>(params, cursor, at, values);
}

// One thread, behind the block's barrier after its partial results: the part is there, for whoever
// sees it counted.
__device__ inline void count_part(int32_t* counter) {
  asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

// One thread: until all parts are there. Blocks are started in the order of their numbers, so those
// waited for run or have ended, or will be started when any other block ends.
__device__ inline void wait_for_parts(const Params& params, const int32_t* counter, int32_t parts) {
  const ExchangeView& exchange = params.args.exchange;
  const uint64_t begin = global_time_ns();
  // Other blocks may have to sit through as many waits for other instances first.
  uint64_t timeout_ns = kPartsTimeoutNs;
  if (exchange.num_instances > 1) timeout_ns += exchange.num_instances * exchange.wait.timeout_ns;
  for (;;) {
    int32_t seen;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    if (seen % kHasJoined >= parts) return;
    if (global_time_ns() - begin > timeout_ns) __trap();
  }
}

// Behind the partial results of a segment in many parts: some of its blocks wait for the others and
// join a share of the values each. They are blocks in the middle, which have nothing else to do.
template <typename S>
__device__ void join_many(const Params& params, const TileCursor& cursor, const Sharing& sharing,
                          int32_t* counter) {
  const int32_t helpers = min(sharing.parts - 2, kHelpersMax);
  const int32_t first_helper = sharing.parts - 1 - helpers;
  const int32_t helper = static_cast<int32_t>(blockIdx.x) - sharing.origin - first_helper;
  const bool helps = helper >= 0 && helper < helpers;
  __syncthreads();
  if (threadIdx.x == 0) {
    count_part(counter);
    if (helps) wait_for_parts(params, counter, sharing.parts);
  }
  if (!helps) return;
  __syncthreads();
  constexpr int kHeadPieces = S::kDim / (4 * kPieceLanes);
  const int32_t num_pieces = params.group * kHeadPieces;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kPieceLanes;
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / 32;
  for (int32_t piece = helper * kWarps + warp; piece < num_pieces; piece += helpers * kWarps) {
    join_piece<S>(params, cursor, sharing, HeadUnit<S>(piece * kPieceLanes + lane));
  }
  // The last that has seen the count clears it.
  if (threadIdx.x == 0 && atomicAdd(counter, kHasJoined) / kHasJoined == helpers - 1) *counter = 0;
}

// Behind the partial results of a shared segment. The last block of a few joins them all.
template <typename S>
__device__ void join_segment(const Params& params, const TileCursor& cursor, const Sharing& sharing,
                             int32_t* flag) {
  int32_t* counter = params.workspace.counters + sharing.origin;
  if (sharing.parts > kFewParts) return join_many<S>(params, cursor, sharing, counter);
  if (!is_last_part(counter, sharing.parts, flag)) return;
  if (sharing.parts == 2) {
    join_few<S, 2>(params, cursor, sharing);
  } else if (sharing.parts <= 4) {
    join_few<S, 4>(params, cursor, sharing);
  } else {
    join_few<S, kFewParts>(params, cursor, sharing);
  }
}

// Brings the four warps' states together and writes the segment's result, or this block's part of
// it. All threads of the block.
template <typename S>
__device__ void finish_segment(const Params& params, const TileCursor& cursor,
                               const Sharing& sharing, const WarpState<S>& state, uint8_t* shared) {
  auto* stats = reinterpret_cast<float2*>(shared + S::kStatsAt);  // [kWarps][kHeads]
  auto* flag = reinterpret_cast<int32_t*>(stats + kWarps * S::kHeads);
  auto* sums = reinterpret_cast<float*>(shared + S::kSumsAt);  // [kWarps][8][kSumStride]
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int pair = lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 2 * S::kHeadTiles; ++i) {
    float sum = state.row_sum[i / 2][i % 2];
    for (int distance = 4; distance < 32; distance *= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
    const int head = i / 2 * 8 + pair + i % 2;
    if (lane < 4) stats[warp * S::kHeads + head] = {state.row_max[i / 2][i % 2], sum};
  }
  const int32_t slot =
      partial_slot(sharing.origin, static_cast<int32_t>(blockIdx.x) - sharing.origin);
#pragma unroll
  for (int tile = 0; tile < S::kHeadTiles; ++tile) {
    float* own = sums + (warp * 8 + pair) * S::kSumStride;
#pragma unroll
    for (int n = 0; n < S::kDim / 16; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        own[i % 2 * S::kSumStride + S::Kv::value_of_row(n, i / 2)] = state.acc[tile][n][i];
      }
    }
    __syncthreads();
    for (int unit = static_cast<int>(threadIdx.x); unit < 2 * S::kDim; unit += kThreads) {
      HeadUnit<S> at(unit);
      HeadValues values = {{0.0F, 0.0F, 0.0F, 0.0F}, {kNothingSeen, 0.0F}};
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {
        const float* from = sums + (w * 8 + at.head) * S::kSumStride + at.column;
        values.add(*reinterpret_cast<const float4*>(from),
                   stats[w * S::kHeads + tile * 8 + at.head]);
      }
      if constexpr (S::Kv::kIsE4m3) {
        values.sum = {values.sum.x * kCodeRest, values.sum.y * kCodeRest, values.sum.z * kCodeRest,
                      values.sum.w * kCodeRest};
      }
      at.head += tile * 8;
      if (at.head >= params.group) continue;
      if (sharing.parts == 1) {
        write_result<S>(params, cursor, at, values);
      } else {
        write_partial<S>(params, slot, at, values);
      }
    }
    __syncthreads();  // sums and statistics may be written again
  }
  if (sharing.parts > 1) join_segment<S>(params, cursor, sharing, flag);
}

// Zero and minus infinity for the rows that see nothing, which no tile stands for. Those of other
// instances are waited for too: nothing is returned ahead of its query (comm.flow_control).
template <typename S>
__device__ void write_neutral_rows(const Params& params) {
  const int32_t* rows = params.workspace.neutral_rows;
  const int32_t count = rows[0];
  for (auto i = static_cast<int32_t>(blockIdx.x); i < count; i += static_cast<int32_t>(gridDim.x)) {
    const AttentionRow row = params.args.rows[rows[1 + i]];
    if (threadIdx.x == 0 && is_remote(params, row)) wait_for_source(params, row.source);
    __syncthreads();
    const int32_t num_heads = params.args.config.num_heads;
    for (int at = static_cast<int>(threadIdx.x); at < num_heads * S::kDim; at += kThreads) {
      const int64_t head = static_cast<int64_t>(row.row) * num_heads + at / S::kDim;
      params.args.out[head * S::kDim + at % S::kDim] = 0.0F;
      if (at % S::kDim == 0) params.args.lse[head] = kNothingSeen;
    }
  }
}

// The copies of one warp's tokens, kStages - 1 tiles ahead of the products. They stop in front of a
// row of another instance that the block has not waited for; the last kStages - 1 groups are then
// empty, so that their number always tells what has landed.
template <typename S>
struct Fetcher {
  TileCursor cursor;
  uint32_t pipeline;    // shared address of the warp's stages
  int32_t open_source;  // the other instance whose rows may be read; -1: none

  __device__ void fetch(const Params& params, int stage) {
    if (cursor.left > 0 && !is_closed(params)) {
      fetch_tile<S>(params, cursor, pipeline + stage * S::kStageBytes);
      cursor.next(params);
    }
    commit_copies();
  }
  __device__ void fill(const Params& params, int first_stage) {
    for (int i = 0; i < S::kStages - 1; ++i) fetch(params, (first_stage + i) % S::kStages);
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

// What a stretch needs first comes from memory while the kernel before this one ends.
template <typename S>
__device__ void prefetch_stretch(const Params& params, const Stretch& stretch) {
  TileCursor cursor(stretch);
  for (int i = 0; i < S::kStages - 1 && cursor.left > 0; ++i) {
    prefetch_tile<S>(params, cursor);
    cursor.next(params);
  }
}

template <typename S>
__device__ void attend_stretch(const Params& params, const Stretch& stretch, uint8_t* shared) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  TileCursor reader(stretch);
  Fetcher<S> fetcher = {reader, shared_address(shared) + warp * S::kStages * S::kStageBytes, -1};
  if (fetcher.is_closed(params)) fetcher.open(params);
  fetcher.fill(params, 0);
  WarpState<S> state;
  Sharing sharing = stretch.first;
  state.start(params, reader);
  int stage = 0;
  while (reader.left > 0) {
    wait_copies<S::kStages - 2>();
    __syncwarp();
    fetcher.fetch(params, stage == 0 ? S::kStages - 1 : stage - 1);
    const int32_t first = reader.first_token() + warp * kWarpTokens;
    if (first < reader.span.token_end && first + kWarpTokens > reader.span.token_begin) {
      state.add_tile(params, reader, fetcher.pipeline + stage * S::kStageBytes, first);
    }
    stage = stage + 1 == S::kStages ? 0 : stage + 1;
    if (reader.tile + 1 < reader.span.num_tiles && reader.left > 1) {
      reader.next(params);
      __syncwarp();
      continue;
    }
    finish_segment<S>(params, reader, sharing, state, shared);
    reader.next(params);
    if (reader.left == 0) return;
    // The fetcher stopped exactly here, for all warps alike.
    if (reader.row == fetcher.cursor.row && fetcher.cursor.left > 0 && fetcher.is_closed(params)) {
      fetcher.open(params);
      fetcher.fill(params, stage);
    }
    const bool ends_here = reader.left >= reader.span.num_tiles;
    sharing = {static_cast<int32_t>(blockIdx.x), ends_here ? 1 : stretch.last_parts};
    state.start(params, reader);
  }
}

template <typename S>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    attend_kernel(const __grid_constant__ Params params) {
  extern __shared__ __align__(128) uint8_t shared[];
  cudaTriggerProgrammaticLaunchCompletion();
  // Written by the schedule, which has ended before the kernel ahead of this one began (or is that
  // kernel, and has published what it wrote).
  const Stretch stretch = params.workspace.stretches[blockIdx.x];
  if (stretch.count > 0) prefetch_stretch<S>(params, stretch);
  cudaGridDependencySynchronize();
  if (stretch.count > 0) attend_stretch<S>(params, stretch, shared);
  write_neutral_rows<S>(params);
}

}  // namespace
}  // namespace nanocp::cuda
