// Device code of mla_decode.cu: the merge kernel, which joins the partial results of rows that lie
// in several lanes. A unit of work is a block's: of a row in many parts one head and a quarter of
// its values, the parts dealt to its warps; of others four heads, a quarter of a head to a warp.
#pragma once

#include "backend/cuda/mla_decode_kernels.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kMergeWarps = 16;
constexpr int kMergeBlocksPerSm = 1;
constexpr int kMergeThreads = 32 * kMergeWarps;
constexpr int kQuarters = 4;
constexpr int kWarpParts = 9;  // of a warp at most: all are asked for at once
static_assert(kMergeWarps * kWarpParts >= kLanesMax);

__device__ inline int32_t merge_units(int32_t num_parts, int32_t num_heads) {
  if (num_parts == 0) return 0;
  if (num_parts > kWarpParts) return num_heads * kQuarters;
  return (num_heads * kQuarters + kMergeWarps - 1) / kMergeWarps;
}

struct MergeShared {
  SplitRow splits[kLanesMax];
  float scales[kMergeWarps][kLanesMax];
  float4 sums[kMergeWarps][32];
};

// One load, not a chain of them.
__device__ inline void read_splits(const Params& params, MergeShared& shared) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  if (thread < params.lanes) shared.splits[thread] = params.workspace.splits[thread];
  __syncthreads();
}

// The lane whose row the unit belongs to.
__device__ inline int32_t find_split(const Params& params, const MergeShared& shared,
                                     int32_t unit) {
  int32_t low = 0;
  int32_t high = params.lanes - 1;
  while (low < high) {  // the last one that begins at or before `unit`
    const int32_t middle = (low + high + 1) / 2;
    if (shared.splits[middle].unit_begin <= unit) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// One head and 128 of its values: a warp, or a block whose warps share the parts.
struct Piece {
  int32_t lane;  // of the first part
  int32_t num_parts;
  int32_t head;
  int32_t quarter;

  // Of this head in the lists of partial results.
  __device__ int64_t place(const Params& params, int32_t part) const {
    const int32_t slot = partial_slot(params, lane + part, part == 0, head / kHeads);
    return static_cast<int64_t>(slot) * params.slot_heads + head % kHeads;
  }

  // Weights of the parts relative to their common maximum; one warp. Returns the row's logarithm.
  __device__ float weigh(const Params& params, float* scales) const {
    const auto thread = static_cast<int32_t>(threadIdx.x) % 32;
    constexpr int kPerThread = (kLanesMax + 31) / 32;
    float maxima[kPerThread];
    float sums[kPerThread];
    float largest = kNothingSeen;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int32_t part = thread + i * 32;
      const bool exists = part < num_parts;
      maxima[i] = exists ? params.workspace.partial_max[place(params, part)] : kNothingSeen;
      sums[i] = exists ? params.workspace.partial_sum[place(params, part)] : 0.0F;
      largest = fmaxf(largest, maxima[i]);
    }
    for (int distance = 16; distance > 0; distance /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
    }
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) sum += sums[i] * exp2f(maxima[i] - largest);
    for (int distance = 16; distance > 0; distance /= 2) {
      sum += __shfl_xor_sync(0xffffffffU, sum, distance);
    }
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const int32_t part = thread + i * 32;
      if (part < num_parts) scales[part] = exp2f(maxima[i] - largest) / sum;
    }
    __syncwarp();
    return (largest + log2f(sum)) * kLn2;
  }

  // The weighted sum of parts first, first + step, ...: four values a thread. One warp.
  __device__ float4 add_up(const Params& params, int32_t first, int32_t step, float* scales,
                           float* logarithm) const {
    const auto thread = static_cast<int32_t>(threadIdx.x) % 32;
    float4 parts[kWarpParts];
#pragma unroll
    for (int i = 0; i < kWarpParts; ++i) {
      const int32_t part = first + i * step;
      if (part >= num_parts) continue;
      const float* from = params.workspace.partial_out + place(params, part) * kLatentDim;
      parts[i] = reinterpret_cast<const float4*>(from)[quarter * 32 + thread];
    }
    *logarithm = weigh(params, scales);
    float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
    for (int i = 0; i < kWarpParts; ++i) {
      const int32_t part = first + i * step;
      if (part >= num_parts) continue;
      sum.x += parts[i].x * scales[part];
      sum.y += parts[i].y * scales[part];
      sum.z += parts[i].z * scales[part];
      sum.w += parts[i].w * scales[part];
    }
    return sum;
  }

  __device__ void store(const Params& params, int32_t row, const float4& value,
                        float logarithm) const {
    const auto thread = static_cast<int32_t>(threadIdx.x) % 32;
    const int64_t at =
        static_cast<int64_t>(params.args.rows[row].row) * params.args.config.num_heads + head;
    reinterpret_cast<float4*>(params.args.out + at * kLatentDim)[quarter * 32 + thread] = value;
    if (thread == 0 && quarter == 0) params.args.lse[at] = logarithm;
  }
};

__device__ inline void merge_unit(const Params& params, int32_t unit, MergeShared& shared) {
  const int32_t lane = find_split(params, shared, unit);
  const SplitRow split = shared.splits[lane];
  const auto warp = static_cast<int32_t>(threadIdx.x) / 32;
  const auto thread = static_cast<int32_t>(threadIdx.x) % 32;
  const bool is_shared = split.count > kWarpParts;
  const int32_t in_row = unit - split.unit_begin;
  const int32_t index = is_shared ? in_row : in_row * kMergeWarps + warp;
  const Piece piece = {lane, split.count, index / kQuarters, index % kQuarters};
  float logarithm;
  if (!is_shared) {
    if (piece.head >= params.args.config.num_heads) return;
    const float4 value = piece.add_up(params, 0, 1, shared.scales[warp], &logarithm);
    piece.store(params, split.row, value, logarithm);
    return;
  }
  shared.sums[warp][thread] =
      piece.add_up(params, warp, kMergeWarps, shared.scales[warp], &logarithm);
  __syncthreads();
  if (warp == 0) {
    float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll
    for (int i = 0; i < kMergeWarps; ++i) {
      const float4 part = shared.sums[i][thread];
      value = make_float4(value.x + part.x, value.y + part.y, value.z + part.z, value.w + part.w);
    }
    piece.store(params, split.row, value, logarithm);
  }
  __syncthreads();  // before the next unit's sums
}

// Zero and minus infinity for the rows that see nothing, which no tile stands for. Those of other
// instances are waited for too: nothing is returned ahead of its query (comm.flow_control).
__device__ inline void write_neutral_rows(const Params& params) {
  const int32_t num_rows = *params.args.num_rows;
  const int64_t num_heads = params.args.config.num_heads;
  for (int32_t index = static_cast<int32_t>(blockIdx.x); index < num_rows;
       index += static_cast<int32_t>(gridDim.x)) {
    if (params.workspace.spans[index].num_tiles > 0) continue;
    const AttentionRow row = params.args.rows[index];
    if (threadIdx.x == 0 && is_remote(params, row)) wait_for_source(params, row.source);
    const int64_t first = row.row * num_heads;
    for (int64_t i = threadIdx.x; i < num_heads * kLatentDim; i += kMergeThreads) {
      params.args.out[first * kLatentDim + i] = 0.0F;
    }
    for (int64_t i = threadIdx.x; i < num_heads; i += kMergeThreads) {
      params.args.lse[first + i] = kNothingSeen;
    }
  }
}

__global__ void __launch_bounds__(kMergeThreads, kMergeBlocksPerSm)
    merge_kernel(const __grid_constant__ Params params) {
  __shared__ MergeShared shared;
  cudaTriggerProgrammaticLaunchCompletion();
  // The attend kernel lets this one begin once all before it has ended: schedule and flags stand.
  read_splits(params, shared);
  const int32_t num_units = *params.workspace.num_units;
  write_neutral_rows(params);
  cudaGridDependencySynchronize();
  for (auto unit = static_cast<int32_t>(blockIdx.x); unit < num_units;
       unit += static_cast<int32_t>(gridDim.x)) {
    merge_unit(params, unit, shared);
  }
}

}  // namespace
}  // namespace nanocp::cuda
