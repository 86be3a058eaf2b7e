// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid) and merge. As
// in mla_decode.cu the work is one line of tiles, cut into equal stretches, one a block: here each
// tile is 64 tokens against 64 queries, and beginning with other queries counts as a tile too.
#include "backend/cuda/mla_prefill.h"

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/block_search.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/mla_prefill_kernels.cuh"
#include "backend/cuda/tensor_map.h"

namespace nanocp::cuda {
namespace {

constexpr int kScheduleThreads = 1024;
constexpr int kGridMax = 512;
constexpr int kUnitPlaces = 2;                 // on the line, before a unit's tiles
constexpr int kMergeThreads = kLatentDim / 4;  // of a row, four dims each
constexpr int kMergeBlocksPerSm = 16;

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
  Unit unit = {low, (index - params.workspace.item_begin[low]) * kTileQueries, 0, 0};
  const int32_t size = params.args.config.block_size;
  const int32_t last_pair = min(pairs_of(params, item), unit.first + kTileQueries) - 1;
  const int32_t last_position = item.first_position + last_pair / params.args.config.num_heads;
  const int32_t* idx = params.args.block_idx + item.block_begin;
  const int32_t last = find_block(idx, item.num_blocks, last_position / size + 1) - 1;
  if (last < 0) return unit;
  const int32_t tokens = last * size + min(size, last_position - idx[last] * size + 1);
  unit.num_tiles = (tokens + kTileTokens - 1) / kTileTokens;
  return unit;
}

// The place of a unit on the line.
__device__ int32_t place_of(const Params& params, int32_t unit) {
  return params.workspace.units[unit].tile_begin + unit * kUnitPlaces;
}

// The last unit whose place is at or before `place`.
__device__ int32_t find_unit(const Params& params, int32_t num_units, int32_t place) {
  int32_t low = 0;
  int32_t high = num_units - 1;
  while (low < high) {
    const int32_t middle = (low + high + 1) / 2;
    if (place_of(params, middle) <= place) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

// This thread's block: its stretch, and the unit that begins there and ends later; count 0: none.
__device__ SplitUnit cut_line(const Params& params, int32_t num_units, int32_t num_tiles) {
  const auto block = static_cast<int32_t>(threadIdx.x);
  params.workspace.stretches[block] = {0, 0, 0};
  const int32_t num_places = num_tiles + num_units * kUnitPlaces;
  const int32_t length = (num_places + params.grid - 1) / params.grid;
  const int32_t begin = block * length;
  const int32_t end = min(num_places, begin + length);
  if (begin >= end) return {0, 0, 0};
  const int32_t first = find_unit(params, num_units, begin);
  const int32_t last = find_unit(params, num_units, end - 1);
  const int32_t last_begin = place_of(params, last) + kUnitPlaces;
  const int32_t last_end = last_begin + params.workspace.units[last].num_tiles;
  const int32_t tile = max(0, begin - place_of(params, first) - kUnitPlaces);
  const int32_t count = params.workspace.units[last].tile_begin + max(0, end - last_begin) -
                        params.workspace.units[first].tile_begin - tile;
  params.workspace.stretches[block] = {first, tile, count};
  if (last_begin < begin || last_begin >= end || last_end <= end) return {0, 0, 0};
  return {last, block, (last_end - 1) / length - block + 1};
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
    return (pairs_of(params, params.args.items[i]) + kTileQueries - 1) / kTileQueries;
  };
  const Range items = own_run(num_items);
  int32_t total = 0;
  for (int32_t i = items.begin; i < items.end; ++i) total += units_of(i);
  int32_t all_units = 0;
  int32_t at = sum_before(total, &all_units);
  for (int32_t i = items.begin; i < items.end; ++i) {
    params.workspace.item_begin[i] = at;
    at += units_of(i);
  }
  __syncthreads();  // the beginnings of all items are written
  const Range units = own_run(all_units);
  int32_t tiles = 0;
  int32_t with_tiles = 0;
  for (int32_t i = units.begin; i < units.end; ++i) {
    const int32_t count = make_unit(params, num_items, i).num_tiles;
    tiles += count;
    with_tiles += count > 0 ? 1 : 0;
  }
  int32_t num_tiles = 0;
  int32_t num_units = 0;
  int32_t tile_begin = sum_before(tiles, &num_tiles);
  int32_t place = sum_before(with_tiles, &num_units);
  int32_t neutral_place = params.units_max - 1 - (units.begin - place);
  for (int32_t i = units.begin; i < units.end; ++i) {
    Unit unit = make_unit(params, num_items, i);
    unit.tile_begin = tile_begin;
    tile_begin += unit.num_tiles;
    params.workspace.units[unit.num_tiles > 0 ? place++ : neutral_place--] = unit;
  }
  __syncthreads();  // the units are written
  SplitUnit split = {0, 0, 0};
  if (static_cast<int32_t>(threadIdx.x) < params.grid) {
    split = cut_line(params, num_units, num_tiles);
  }
  int32_t num_splits = 0;
  place = sum_before(split.count > 0 ? 1 : 0, &num_splits);
  if (split.count > 0) params.workspace.splits[place] = split;
  if (threadIdx.x > 0) return;
  *params.workspace.num_neutral = all_units - num_units;
  *params.workspace.num_splits = num_splits;
}

// Zero and minus infinity for the rows of units that see nothing.
__device__ void write_neutral_rows(const Params& params) {
  const int32_t num_rows = *params.workspace.num_neutral * kTileQueries;
  for (auto i = static_cast<int32_t>(blockIdx.x); i < num_rows;
       i += static_cast<int32_t>(gridDim.x)) {
    const Unit unit = params.workspace.units[params.units_max - 1 - i / kTileQueries];
    const PrefillItem item = params.args.items[unit.item];
    const int32_t at = unit.first + i % kTileQueries;
    if (at >= pairs_of(params, item)) continue;
    const int64_t pair = int64_t{item.row_begin} * params.args.config.num_heads + at;
    reinterpret_cast<float4*>(params.args.out + pair * kLatentDim)[threadIdx.x] =
        make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    if (threadIdx.x == 0) params.args.lse[pair] = kNothingSeen;
  }
}

// The block where a unit starts keeps its part in its second slot, the others in their first.
__device__ int64_t partial_row(const SplitUnit& split, int32_t part, int32_t row) {
  const int32_t slot = 2 * (split.block + part) + (part == 0 ? 1 : 0);
  return int64_t{slot} * kTileQueries + row;
}

struct MergeShared {
  float scales[kGridMax];
  float log_sum;
};

// Weights of the parts of a row relative to their common maximum; one warp.
__device__ void weigh_parts(const Params& params, const SplitUnit& split, int32_t row,
                            MergeShared& shared) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  float largest = kNothingSeen;
  for (int32_t part = lane; part < split.count; part += 32) {
    largest = fmaxf(largest, params.workspace.partial_max[partial_row(split, part, row)]);
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
  }
  const float base = largest == kNothingSeen ? 0.0F : largest;
  float sum = 0.0F;
  for (int32_t part = lane; part < split.count; part += 32) {
    const int64_t at = partial_row(split, part, row);
    shared.scales[part] = exp2f(params.workspace.partial_max[at] - base);
    sum += params.workspace.partial_sum[at] * shared.scales[part];
  }
  for (int distance = 16; distance > 0; distance /= 2) {
    sum += __shfl_xor_sync(0xffffffffU, sum, distance);
  }
  for (int32_t part = lane; part < split.count; part += 32) {
    shared.scales[part] = sum > 0.0F ? shared.scales[part] / sum : 0.0F;
  }
  if (lane == 0) shared.log_sum = sum > 0.0F ? (largest + log2f(sum)) * kLn2 : kNothingSeen;
}

// All threads of the block, four dims each.
__device__ void merge_row(const Params& params, const SplitUnit& split, int32_t row, int64_t pair,
                          MergeShared& shared) {
  __syncthreads();  // all have done with the row before
  if (threadIdx.x < 32) weigh_parts(params, split, row, shared);
  __syncthreads();
  float4 out = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
#pragma unroll 8
  for (int32_t part = 0; part < split.count; ++part) {
    const float* from = params.workspace.partial_out + partial_row(split, part, row) * kLatentDim;
    const float4 value = reinterpret_cast<const float4*>(from)[threadIdx.x];
    const float scale = shared.scales[part];
    out.x += value.x * scale;
    out.y += value.y * scale;
    out.z += value.z * scale;
    out.w += value.w * scale;
  }
  reinterpret_cast<float4*>(params.args.out + pair * kLatentDim)[threadIdx.x] = out;
  if (threadIdx.x == 0) params.args.lse[pair] = shared.log_sum;
}

// Joins the parts of split units; the blocks go round their rows.
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const __grid_constant__ Params params) {
  __shared__ MergeShared shared;
  write_neutral_rows(params);
  const int32_t num_rows = *params.workspace.num_splits * kTileQueries;
  for (auto i = static_cast<int32_t>(blockIdx.x); i < num_rows;
       i += static_cast<int32_t>(gridDim.x)) {
    const SplitUnit split = params.workspace.splits[i / kTileQueries];
    const Unit unit = params.workspace.units[split.unit];
    const PrefillItem item = params.args.items[unit.item];
    const int32_t row = i % kTileQueries;
    if (unit.first + row >= pairs_of(params, item)) continue;
    const int64_t begin = int64_t{item.row_begin} * params.args.config.num_heads;
    merge_row(params, split, row, begin + unit.first + row, shared);
  }
}

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// Each item ends with at most one unit that is not full.
int64_t units_max(const MlaPrefillConfig& config) {
  return int64_t{config.max_rows} * config.num_heads / kTileQueries + config.max_rows;
}

// One list gives offsets and total.
size_t lay_out(const MlaPrefillConfig& config, int grid, void* base, Workspace* workspace) {
  auto* bytes = static_cast<uint8_t*>(base);
  size_t offset = 0;
  const auto take = [&]<typename T>(T*& member, size_t count) {
    member = base == nullptr ? nullptr : reinterpret_cast<T*>(bytes + offset);
    offset += align(count * sizeof(T));
  };
  const auto rows = static_cast<size_t>(config.max_rows);
  const auto rows_of_slots = static_cast<size_t>(2 * grid * kTileQueries);
  take(workspace->stretches, static_cast<size_t>(grid));
  take(workspace->splits, static_cast<size_t>(grid));
  take(workspace->num_splits, 1);
  take(workspace->item_begin, rows);
  take(workspace->units, static_cast<size_t>(units_max(config)));
  take(workspace->num_neutral, 1);
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

Result<int> attend_grid() {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return std::min(kGridMax, num_sms);
}

Status fill_params(const MlaPrefillArgs& args, Params* params) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(params->grid, attend_grid());
  params->args = args;
  params->units_max = static_cast<int32_t>(units_max(args.config));
  params->scale_log2 = args.config.softmax_scale * kLog2E;
  const int32_t size = args.config.block_size;
  params->box_tokens = size % kTileTokens == 0 ? kTileTokens : size % 32 == 0 ? 32 : kRunTokens;
  lay_out(args.config, params->grid, args.workspace, &params->workspace);
  return ok_status();
}

// Queries are pairs of rows and heads; the tokens of a block follow one another.
Status make_maps(Params* params) {
  constexpr int64_t kBlocksMax = int64_t{1} << 30;
  const MlaPrefillArgs& args = params->args;
  const int64_t num_pairs = args.q_rows * args.config.num_heads;
  NANOCP_RETURN_IF_ERROR(make_tensor_map({.base = args.q,
                                          .columns = kLatentKeyDim,
                                          .rows = num_pairs,
                                          .matrices = 1,
                                          .row_stride = kLatentKeyDim,
                                          .matrix_stride = num_pairs * kLatentKeyDim,
                                          .box_rows = kTileQueries},
                                         &params->queries));
  const bool is_bf16 = args.config.cache_type == CacheType::kBf16;
  return make_tensor_map({.base = args.cache,
                          .columns = kLatentKeyDim,
                          .rows = args.config.block_size,
                          .matrices = kBlocksMax,
                          .row_stride = kLatentKeyDim,
                          .matrix_stride = args.block_stride,
                          .box_rows = is_bf16 ? params->box_tokens : kCodeTokens,
                          .value_bytes = is_bf16 ? 2 : 1},
                         &params->tokens);
}

}  // namespace

Result<size_t> mla_prefill_workspace_bytes(const MlaPrefillConfig& config) {
  NANOCP_RETURN_IF_ERROR(check_config(config));
  NANOCP_ASSIGN_OR_RETURN(const int grid, attend_grid());
  Workspace workspace;
  return lay_out(config, grid, nullptr, &workspace);
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
  NANOCP_RETURN_IF_ERROR(make_maps(&params));
  const auto attend = args.config.cache_type == CacheType::kBf16 ? attend_kernel<CacheType::kBf16>
                                                                 : attend_kernel<CacheType::kE4m3>;
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaFuncSetAttribute(attend, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared)),
      "shared memory of latent prefill attention"));
  const auto grid = static_cast<unsigned>(params.grid);
  attend<<<grid, kThreads, sizeof(Shared), stream>>>(params);
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaGetLastError(), "launch of latent prefill attention"));
  merge_kernel<<<grid * kMergeBlocksPerSm, kMergeThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the merge of latent prefill attention");
}

}  // namespace nanocp::cuda
