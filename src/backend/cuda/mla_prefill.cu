// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid of clusters)
// and merge. As in mla_decode.cu the work is one line of tiles, cut into equal stretches: here each
// tile is 64 tokens against the queries of a cluster.
#include "backend/cuda/mla_prefill.h"

#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/mla_prefill_kernels.cuh"
#include "backend/cuda/tensor_map.h"

namespace nanocp::cuda {
namespace {

constexpr int kScheduleThreads = 1024;
constexpr int kClusterBlocks = 2;
constexpr int kUnitPairs = kClusterBlocks * kTileQueries;
constexpr int kMergeThreads = kLatentDim / 4;  // of a row, four dims each
constexpr int kMergeRows = 4;                  // of a block, one after another

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

__device__ int32_t pairs_of(const Params& params, const PrefillItem& item) {
  return item.num_rows * params.args.config.num_heads;
}

// Unit number `index` over all items. Tokens lie by rising position, so what its last row sees, and
// with it all others, are the first tokens of the shard.
__device__ Unit make_unit(const Params& params, int32_t num_items, int32_t index) {
  int32_t low = 0;
  int32_t high = num_items - 1;
  while (low < high) {  // the last item that begins at or before the unit
    const int32_t middle = (low + high + 1) / 2;
    if (params.workspace.item_begin[middle] <= index) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const PrefillItem item = params.args.items[low];
  Unit unit = {low, (index - params.workspace.item_begin[low]) * kUnitPairs, 0, 0};
  const int32_t size = params.args.config.block_size;
  const int32_t last_pair = min(pairs_of(params, item), unit.first + kUnitPairs) - 1;
  const int32_t last_position = item.first_position + last_pair / params.args.config.num_heads;
  const int32_t* idx = params.args.block_idx + item.block_begin;
  const int32_t last = find_block(idx, item.num_blocks, last_position / size + 1) - 1;
  if (last < 0) return unit;
  const int32_t tokens = last * size + min(size, last_position - idx[last] * size + 1);
  unit.num_tiles = (tokens + kTileTokens - 1) / kTileTokens;
  return unit;
}

// The tile at `place` of the line of all tiles.
__device__ Stretch locate(const Params& params, int32_t num_units, int32_t place) {
  int32_t low = 0;
  int32_t high = num_units - 1;
  while (low < high) {  // the last unit that begins at or before `place`
    const int32_t middle = (low + high + 1) / 2;
    if (params.workspace.units[middle].tile_begin <= place) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return {low, place - params.workspace.units[low].tile_begin, 0};
}

// This thread's cluster: its stretch, and the unit that it leaves unfinished.
__device__ void cut_line(const Params& params, int32_t num_units, int32_t num_tiles) {
  const auto cluster = static_cast<int32_t>(threadIdx.x);
  const int32_t length = (num_tiles + params.clusters - 1) / params.clusters;
  const int32_t begin = cluster * length;
  const int32_t end = min(num_tiles, begin + length);
  Stretch stretch = {0, 0, 0};
  SplitUnit split = {0, 0};
  if (begin < end) {
    stretch = locate(params, num_units, begin);
    stretch.count = end - begin;
    const Stretch last = locate(params, num_units, end - 1);
    const int32_t unit_begin = end - 1 - last.tile;
    const int32_t unit_end = unit_begin + params.workspace.units[last.unit].num_tiles;
    if (unit_begin >= begin && unit_end > end) {
      split = {last.unit, (unit_end - 1) / length - cluster + 1};
    }
  }
  params.workspace.stretches[cluster] = stretch;
  params.workspace.splits[cluster] = split;
}

// The sum over the threads before this one, and that over all. All threads of the block.
__device__ int32_t sum_before(int32_t value, int32_t* all) {
  __shared__ int32_t totals[kScheduleThreads];
  __syncthreads();
  totals[threadIdx.x] = value;
  __syncthreads();
  for (int distance = 1; distance < kScheduleThreads; distance *= 2) {
    const int32_t before =
        static_cast<int>(threadIdx.x) >= distance ? totals[threadIdx.x - distance] : 0;
    __syncthreads();
    totals[threadIdx.x] += before;
    __syncthreads();
  }
  *all = totals[kScheduleThreads - 1];
  return totals[threadIdx.x] - value;
}

struct Range {
  int32_t begin;
  int32_t end;
};

// Of `count` things, the run of adjacent ones that this thread takes.
__device__ Range own_run(int32_t count) {
  const int32_t per_thread = (count + kScheduleThreads - 1) / kScheduleThreads;
  const int32_t begin = min(count, static_cast<int32_t>(threadIdx.x) * per_thread);
  return {begin, min(count, begin + per_thread)};
}

// Fills units, stretches and splits. One block.
__global__ void schedule_kernel(const __grid_constant__ Params params) {
  const int32_t num_items = *params.args.num_items;
  const auto units_of = [&](int32_t i) {
    return (pairs_of(params, params.args.items[i]) + kUnitPairs - 1) / kUnitPairs;
  };
  const Range items = own_run(num_items);
  int32_t total = 0;
  for (int32_t i = items.begin; i < items.end; ++i) total += units_of(i);
  int32_t num_units = 0;
  int32_t at = sum_before(total, &num_units);
  for (int32_t i = items.begin; i < items.end; ++i) {
    params.workspace.item_begin[i] = at;
    at += units_of(i);
  }
  __syncthreads();  // the beginnings of all items are written
  const Range units = own_run(num_units);
  total = 0;
  for (int32_t i = units.begin; i < units.end; ++i) {
    Unit unit = make_unit(params, num_items, i);
    unit.tile_begin = total;
    total += unit.num_tiles;
    params.workspace.units[i] = unit;
  }
  int32_t num_tiles = 0;
  const int32_t offset = sum_before(total, &num_tiles);
  for (int32_t i = units.begin; i < units.end; ++i) {
    params.workspace.units[i].tile_begin += offset;
  }
  if (threadIdx.x == 0) *params.workspace.num_units = num_units;
  __syncthreads();  // the units are written
  if (static_cast<int32_t>(threadIdx.x) < params.clusters) cut_line(params, num_units, num_tiles);
}

// Zero and minus infinity for the rows of units that no tile stands for.
__device__ void write_neutral_rows(const Params& params) {
  const int32_t num_units = *params.workspace.num_units;
  const auto block = static_cast<int32_t>(blockIdx.y * gridDim.x + blockIdx.x);
  const auto step = static_cast<int32_t>(gridDim.x * gridDim.y);
  for (int32_t index = block; index < num_units; index += step) {
    const Unit unit = params.workspace.units[index];
    if (unit.num_tiles > 0) continue;
    const PrefillItem item = params.args.items[unit.item];
    const int64_t begin =
        static_cast<int64_t>(item.row_begin) * params.args.config.num_heads + unit.first;
    const int32_t count = min(kUnitPairs, pairs_of(params, item) - unit.first);
    for (int32_t i = 0; i < count; ++i) {
      reinterpret_cast<float4*>(params.args.out + (begin + i) * kLatentDim)[threadIdx.x] =
          make_float4(0.0F, 0.0F, 0.0F, 0.0F);
      if (threadIdx.x == 0) params.args.lse[begin + i] = kNothingSeen;
    }
  }
}

// The cluster where a unit starts keeps its part in its second slot, the others in their first.
__device__ int64_t partial_row(int32_t part, int32_t row) {
  const int32_t slot = 2 * (static_cast<int32_t>(blockIdx.x) + part) + (part == 0 ? 1 : 0);
  return static_cast<int64_t>(slot) * kUnitPairs + row;
}

__device__ void merge_row(const Params& params, const SplitUnit& split, int32_t row, int64_t pair) {
  const Workspace& workspace = params.workspace;
  float largest = kNothingSeen;
  for (int32_t part = 0; part < split.count; ++part) {
    largest = fmaxf(largest, workspace.partial_max[partial_row(part, row)]);
  }
  const float base = largest == kNothingSeen ? 0.0F : largest;
  float sum = 0.0F;
  float4 out = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll 4
  for (int32_t part = 0; part < split.count; ++part) {
    const int64_t at = partial_row(part, row);
    const float scale = exp2f(workspace.partial_max[at] - base);
    const float4 value =
        reinterpret_cast<const float4*>(workspace.partial_out + at * kLatentDim)[threadIdx.x];
    sum += workspace.partial_sum[at] * scale;
    out.x += value.x * scale;
    out.y += value.y * scale;
    out.z += value.z * scale;
    out.w += value.w * scale;
  }
  const float factor = sum > 0.0F ? 1.0F / sum : 0.0F;
  reinterpret_cast<float4*>(params.args.out + pair * kLatentDim)[threadIdx.x] =
      make_float4(out.x * factor, out.y * factor, out.z * factor, out.w * factor);
  if (threadIdx.x == 0) {
    params.args.lse[pair] = sum > 0.0F ? (largest + log2f(sum)) * kLn2 : kNothingSeen;
  }
}

// Joins the parts of the unit that was left unfinished in a cluster; each block some rows of it.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const __grid_constant__ Params params) {
  write_neutral_rows(params);
  const SplitUnit split = params.workspace.splits[blockIdx.x];
  if (split.count == 0) return;
  const Unit unit = params.workspace.units[split.unit];
  const PrefillItem item = params.args.items[unit.item];
  for (int i = 0; i < kMergeRows; ++i) {
    const int32_t row = static_cast<int32_t>(blockIdx.y) * kMergeRows + i;
    const int32_t pair = unit.first + row;
    if (pair >= pairs_of(params, item)) return;
    merge_row(params, split, row,
              static_cast<int64_t>(item.row_begin) * params.args.config.num_heads + pair);
  }
}

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// One list gives offsets and total.
size_t lay_out(const MlaPrefillConfig& config, int clusters, void* base, Workspace* workspace) {
  auto* bytes = static_cast<uint8_t*>(base);
  size_t offset = 0;
  const auto take = [&]<typename T>(T*& member, size_t count) {
    member = base == nullptr ? nullptr : reinterpret_cast<T*>(bytes + offset);
    offset += align(count * sizeof(T));
  };
  const auto rows = static_cast<size_t>(config.max_rows);
  const auto rows_of_slots = static_cast<size_t>(2 * clusters * kUnitPairs);
  // Each item ends with at most one unit that is not full.
  const size_t units = rows * static_cast<size_t>(config.num_heads) / kUnitPairs + rows;
  take(workspace->stretches, static_cast<size_t>(clusters));
  take(workspace->splits, static_cast<size_t>(clusters));
  take(workspace->item_begin, rows);
  take(workspace->units, units);
  take(workspace->num_units, 1);
  take(workspace->partial_out, rows_of_slots * kLatentDim);
  take(workspace->partial_max, rows_of_slots);
  take(workspace->partial_sum, rows_of_slots);
  return offset;
}

Status check_config(const MlaPrefillConfig& config) {
  if (config.block_size < kRunTokens || config.block_size % kRunTokens != 0) {
    return invalid_argument("the block size must be a multiple of 16 tokens, not " +
                            std::to_string(config.block_size));
  }
  if (config.num_heads < 1) return invalid_argument("num_heads must be at least 1");
  if (config.max_rows < 1) return invalid_argument("max_rows must be at least 1");
  return ok_status();
}

Result<int> num_clusters() {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return num_sms / kClusterBlocks;
}

Status fill_params(const MlaPrefillArgs& args, Params* params) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(params->clusters, num_clusters());
  params->args = args;
  params->unit_pairs = kUnitPairs;
  params->scale_log2 = args.config.softmax_scale * kLog2E;
  const int32_t size = args.config.block_size;
  params->box_tokens = size % kTileTokens == 0 ? kTileTokens : size % 32 == 0 ? 32 : kRunTokens;
  lay_out(args.config, params->clusters, args.workspace, &params->workspace);
  return ok_status();
}

}  // namespace

Result<size_t> mla_prefill_workspace_bytes(const MlaPrefillConfig& config) {
  NANOCP_RETURN_IF_ERROR(check_config(config));
  NANOCP_ASSIGN_OR_RETURN(const int clusters, num_clusters());
  Workspace workspace;
  return lay_out(config, clusters, nullptr, &workspace);
}

Status launch_mla_prefill_schedule(const MlaPrefillArgs& args, cudaStream_t stream) {
  Params params = {};
  NANOCP_RETURN_IF_ERROR(fill_params(args, &params));
  schedule_kernel<<<1, kScheduleThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the prefill schedule");
}

Status launch_mla_prefill(const MlaPrefillArgs& args, cudaStream_t stream) {
  Params params = {};
  NANOCP_RETURN_IF_ERROR(fill_params(args, &params));
  NANOCP_RETURN_IF_ERROR(make_swizzled_map(
      {.data = args.q, .rows = args.q_rows * args.config.num_heads, .cols = kLatentKeyDim},
      kTileQueries, &params.queries));
  NANOCP_RETURN_IF_ERROR(make_swizzled_map(
      {.data = args.cache, .rows = args.num_blocks * args.config.block_size, .cols = kLatentKeyDim},
      params.box_tokens, &params.tokens));
  const auto kernel = attend_kernel<kClusterBlocks, false>;
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)),
      "shared memory of latent prefill attention"));
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kClusterBlocks, 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(params.clusters * kClusterBlocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(Shared);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaLaunchKernelEx(&config, kernel, params),
                                     "launch of latent prefill attention"));
  const dim3 grid(static_cast<unsigned>(params.clusters), kUnitPairs / kMergeRows);
  merge_kernel<<<grid, kMergeThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the merge of latent prefill attention");
}

}  // namespace nanocp::cuda
