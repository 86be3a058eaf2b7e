// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid)
// and merge, as in attention_decode.cu, with groups of 16 heads in place of KV heads.
#include "backend/cuda/mla_decode.h"

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/mla_decode_kernels.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kScheduleThreads = 1024;
constexpr int kMergeDims = kLatentDim / 4;  // threads that share the dims of a head
constexpr int kMergeHeads = 4;              // of a block
constexpr int kMergeThreads = kMergeDims * kMergeHeads;
constexpr int kFewParts = 16;

// First block whose place in the sequence is >= place.
__device__ int32_t find_block(const int32_t* block_idx, int32_t count, int32_t place) {
  int32_t low = 0;
  int32_t high = count;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (block_idx[middle] < place) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// Tokens lie by rising position, so what a row sees is one range of its shard.
__device__ RowSpan visible_span(const MlaDecodeArgs& args, const AttentionRow& row) {
  const int32_t size = args.config.block_size;
  const int32_t* idx = args.block_idx + row.block_begin;
  const int32_t last = find_block(idx, row.num_blocks, row.position / size + 1) - 1;
  if (last < 0) return {0, 0, 0, 0};
  const int32_t end = last * size + min(size, row.position - idx[last] * size + 1);
  return {0, end, 0, (end + kTileTokens - 1) / kTileTokens};
}

// The tile at `place` of the line of all tiles.
__device__ Stretch locate(const Params& params, int32_t num_rows, int32_t place) {
  const int32_t heads = params.groups;
  int32_t low = 0;
  int32_t high = num_rows - 1;
  while (low < high) {  // the last row that begins at or before `place`
    const int32_t middle = (low + high + 1) / 2;
    if (params.workspace.spans[middle].tile_begin * heads <= place) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const RowSpan span = params.workspace.spans[low];
  const int32_t in_row = place - span.tile_begin * heads;
  return {low, in_row / span.num_tiles, in_row % span.num_tiles, 0};
}

// This thread's block of the attend grid: its stretch, and the segment that it leaves unfinished.
__device__ void cut_line(const Params& params, int32_t num_rows, int32_t num_tiles) {
  const auto block = static_cast<int32_t>(threadIdx.x);
  // Equal stretches, the last ones empty: levelling them to one tile splits more segments and was
  // no faster where lengths are powers of two (docs/benchmarks).
  const int32_t length = max(kMinStretchTiles, (num_tiles + params.grid - 1) / params.grid);
  const int32_t begin = block * length;
  const int32_t end = min(num_tiles, begin + length);
  Stretch stretch = {0, 0, 0, 0};
  SplitSegment split = {0, 0, 0};
  if (begin < end) {
    stretch = locate(params, num_rows, begin);
    stretch.count = end - begin;
    const Stretch last = locate(params, num_rows, end - 1);
    const int32_t segment_begin = end - 1 - last.tile;
    const int32_t segment_end = segment_begin + params.workspace.spans[last.row].num_tiles;
    if (segment_begin >= begin && segment_end > end) {
      split = {last.row, last.group, (segment_end - 1) / length - block + 1};
    }
  }
  params.workspace.stretches[block] = stretch;
  params.workspace.splits[block] = split;
}

// Fills spans, stretches and splits. One block; every thread takes a run of adjacent rows.
__global__ void schedule_kernel(const __grid_constant__ Params params) {
  __shared__ int32_t totals[kScheduleThreads];
  const int32_t num_rows = *params.args.num_rows;
  const int32_t per_thread = (num_rows + kScheduleThreads - 1) / kScheduleThreads;
  const int32_t begin = min(num_rows, static_cast<int32_t>(threadIdx.x) * per_thread);
  const int32_t end = min(num_rows, begin + per_thread);
  int32_t total = 0;
  for (int32_t i = begin; i < end; ++i) {
    RowSpan span = visible_span(params.args, params.args.rows[i]);
    span.tile_begin = total;
    total += span.num_tiles;
    params.workspace.spans[i] = span;
  }
  totals[threadIdx.x] = total;
  __syncthreads();
  for (int distance = 1; distance < kScheduleThreads; distance *= 2) {
    const int32_t before =
        static_cast<int>(threadIdx.x) >= distance ? totals[threadIdx.x - distance] : 0;
    __syncthreads();
    totals[threadIdx.x] += before;
    __syncthreads();
  }
  const int32_t offset = totals[threadIdx.x] - total;
  for (int32_t i = begin; i < end; ++i) params.workspace.spans[i].tile_begin += offset;
  const int32_t all = totals[kScheduleThreads - 1] * params.groups;
  __syncthreads();  // the spans of all rows are written
  if (static_cast<int32_t>(threadIdx.x) < params.grid) cut_line(params, num_rows, all);
}

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// One list gives offsets and total.
size_t lay_out(const MlaDecodeConfig& config, int grid, void* base, Workspace* workspace) {
  auto* bytes = static_cast<uint8_t*>(base);
  size_t offset = 0;
  const auto take = [&](size_t size) {
    uint8_t* at = base == nullptr ? nullptr : bytes + offset;
    offset += align(size);
    return at;
  };
  const auto slots = static_cast<size_t>(2 * grid * kHeads);
  const auto blocks = static_cast<size_t>(grid);
  workspace->stretches = reinterpret_cast<Stretch*>(take(sizeof(Stretch) * blocks));
  workspace->splits = reinterpret_cast<SplitSegment*>(take(sizeof(SplitSegment) * blocks));
  workspace->spans = reinterpret_cast<RowSpan*>(take(sizeof(RowSpan) * config.max_rows));
  workspace->partial_out =
      reinterpret_cast<float*>(take(slots * static_cast<size_t>(kLatentDim) * sizeof(float)));
  workspace->partial_max = reinterpret_cast<float*>(take(slots * sizeof(float)));
  workspace->partial_sum = reinterpret_cast<float*>(take(slots * sizeof(float)));
  return offset;
}

// The block where a segment starts keeps its part in its second slot, the others in their first.
__device__ int32_t partial_slot(int32_t part) {
  return 2 * (static_cast<int32_t>(blockIdx.x) + part) + (part == 0 ? 1 : 0);
}

// Weights of a segment's partial results relative to their common maximum; one warp.
__device__ void weigh_partials(const Params& params, int32_t num_parts, int head, float* scales,
                               float* log_sum) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const auto at = [&](int32_t part) { return partial_slot(part) * kHeads + head; };
  float largest = kNothingSeen;
  for (int32_t part = lane; part < num_parts; part += 32) {
    largest = fmaxf(largest, params.workspace.partial_max[at(part)]);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
  }
  const float base = largest == kNothingSeen ? 0.0F : largest;
  float sum = 0.0F;
  for (int32_t part = lane; part < num_parts; part += 32) {
    scales[part] = exp2f(params.workspace.partial_max[at(part)] - base);
    sum += params.workspace.partial_sum[at(part)] * scales[part];
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, distance);
  }
  for (int32_t part = lane; part < num_parts; part += 32) {
    scales[part] = sum > 0.0F ? scales[part] / sum : 0.0F;
  }
  if (lane == 0) *log_sum = sum > 0.0F ? (largest + log2f(sum)) * kLn2 : kNothingSeen;
}

// Zero and minus infinity for the rows that see nothing, which no tile stands for.
__device__ void write_neutral_rows(const Params& params) {
  const int32_t num_rows = *params.args.num_rows;
  const int32_t num_heads = params.args.config.num_heads;
  for (int32_t index = static_cast<int32_t>(blockIdx.x); index < num_rows;
       index += static_cast<int32_t>(gridDim.x)) {
    if (params.workspace.spans[index].num_tiles > 0) continue;
    for (int32_t head = static_cast<int32_t>(blockIdx.y); head < num_heads;
         head += static_cast<int32_t>(gridDim.y)) {
      const int64_t at = static_cast<int64_t>(params.args.rows[index].row) * num_heads + head;
      for (int32_t dim = static_cast<int32_t>(threadIdx.x); dim < kLatentDim;
           dim += kMergeThreads) {
        params.args.out[at * kLatentDim + dim] = 0.0F;
      }
      if (threadIdx.x == 0) params.args.lse[at] = kNothingSeen;
    }
  }
}

struct MergeShared {
  float scales[kMergeHeads][kGridMax];
  float log_sums[kMergeHeads];
  float4 sums[kMergeHeads][kMergeDims];
};

__device__ void add_scaled(float4& sum, const float4& value, float scale) {
  sum.x += value.x * scale;
  sum.y += value.y * scale;
  sum.z += value.z * scale;
  sum.w += value.w * scale;
}

// The sum of parts first, first + step, ... of one head for this thread's four dims.
__device__ float4 add_parts(const Params& params, int head, int32_t num_parts, int32_t first,
                            int32_t step, const float* scales) {
  const auto dim = static_cast<int32_t>(threadIdx.x) % kMergeDims;
  float4 sum = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll 8
  for (int32_t part = first; part < num_parts; part += step) {
    const int64_t at = static_cast<int64_t>(partial_slot(part)) * kHeads + head;
    const float* from = params.workspace.partial_out + at * kLatentDim;
    add_scaled(sum, reinterpret_cast<const float4*>(from)[dim], scales[part]);
  }
  return sum;
}

__device__ void store_merged(const Params& params, const SplitSegment& split, int head,
                             const float4& value, float log_sum) {
  const auto dim = static_cast<int32_t>(threadIdx.x) % kMergeDims;
  const int32_t in_row = split.group * kHeads + head;
  if (in_row >= params.args.config.num_heads) return;
  const int64_t at =
      static_cast<int64_t>(params.args.rows[split.row].row) * params.args.config.num_heads + in_row;
  reinterpret_cast<float4*>(params.args.out + at * kLatentDim)[dim] = value;
  if (dim == 0) params.args.lse[at] = log_sum;
}

// One block per block of the attend grid and four heads of a group: joins the partial results of
// the segment that was left unfinished there. Its four teams of threads take a head each, or, where
// there are many parts, a quarter of the parts of one head after another.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const __grid_constant__ Params params) {
  __shared__ MergeShared shared;
  cudaGridDependencySynchronize();
  write_neutral_rows(params);
  const SplitSegment split = params.workspace.splits[blockIdx.x];
  const int32_t num_parts = split.count;
  if (num_parts == 0) return;
  const int first = static_cast<int>(blockIdx.y) * kMergeHeads;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  if (warp < kMergeHeads) {
    weigh_partials(params, num_parts, first + warp, shared.scales[warp], &shared.log_sums[warp]);
  }
  __syncthreads();
  const int team = static_cast<int>(threadIdx.x) / kMergeDims;
  if (num_parts <= kFewParts) {
    const float4 value = add_parts(params, first + team, num_parts, 0, 1, shared.scales[team]);
    store_merged(params, split, first + team, value, shared.log_sums[team]);
    return;
  }
  for (int i = 0; i < kMergeHeads; ++i) {
    shared.sums[team][threadIdx.x % kMergeDims] =
        add_parts(params, first + i, num_parts, team, kMergeHeads, shared.scales[i]);
    __syncthreads();
    if (team == i) {
      float4 value = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      for (const auto& part : shared.sums) add_scaled(value, part[threadIdx.x % kMergeDims], 1.0F);
      store_merged(params, split, first + i, value, shared.log_sums[i]);
    }
    __syncthreads();
  }
}

Result<int> attend_grid() {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return std::min(kGridMax, kBlocksPerSm * num_sms);
}

Status check_config(const MlaDecodeConfig& config) {
  if (config.block_size < 16 || config.block_size % 16 != 0) {
    return invalid_argument("the block size must be a multiple of 16 tokens, not " +
                            std::to_string(config.block_size));
  }
  if (config.num_heads < 1) return invalid_argument("num_heads must be at least 1");
  if (config.max_rows < 1) return invalid_argument("max_rows must be at least 1");
  return ok_status();
}

Result<Params> make_params(const MlaDecodeArgs& args) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(const int grid, attend_grid());
  Params params = {};
  params.args = args;
  params.grid = grid;
  params.groups = (args.config.num_heads + kHeads - 1) / kHeads;
  params.scale_log2 = args.config.softmax_scale * kLog2E;
  lay_out(args.config, grid, args.workspace, &params.workspace);
  return params;
}

}  // namespace

Result<size_t> mla_decode_workspace_bytes(const MlaDecodeConfig& config) {
  NANOCP_RETURN_IF_ERROR(check_config(config));
  NANOCP_ASSIGN_OR_RETURN(const int grid, attend_grid());
  Workspace workspace;
  return lay_out(config, grid, nullptr, &workspace);
}

Status launch_mla_schedule(const MlaDecodeArgs& args, cudaStream_t stream) {
  NANOCP_ASSIGN_OR_RETURN(const Params params, make_params(args));
  schedule_kernel<<<1, kScheduleThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the attention schedule");
}

Status launch_mla_decode(const MlaDecodeArgs& args, cudaStream_t stream) {
  NANOCP_ASSIGN_OR_RETURN(const Params params, make_params(args));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(attend_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       sizeof(Shared)),
                  "shared memory of latent attention"));
  const auto grid = static_cast<unsigned>(params.grid);
  NANOCP_RETURN_IF_ERROR(launch_overlapped(attend_kernel, dim3(grid), kThreads, params, stream,
                                           "latent attention", sizeof(Shared)));
  return launch_overlapped(merge_kernel, dim3(grid, kHeads / kMergeHeads), kMergeThreads, params,
                           stream, "the merge of latent attention");
}

}  // namespace nanocp::cuda
