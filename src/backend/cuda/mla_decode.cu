// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid). The tiles of
// all rows are laid out in one line; each lane of the attend grid takes an equal stretch of it. A
// stretch covers whole rows, whose results are final, and at most one begun and one ended row,
// whose partial results go to two slots of the workspace and are joined by the row's lanes at the
// end.
#include "backend/cuda/mla_decode.h"

#include <algorithm>
#include <string>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/block_search.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/mla_decode_kernels.cuh"
#include "backend/cuda/mla_few_code_kernels.cuh"
#include "backend/cuda/mla_few_kernels.cuh"
#include "backend/cuda/tensor_map.h"

namespace nanocp::cuda {
namespace {

constexpr int kScheduleThreads = 1024;
constexpr int kClearingBlocks = 64;
// Tiles that a lane may take above the average so that rows of equal lengths are cut evenly: about
// what a second segment costs (queries, first tiles, a partial result), or this part of the
// average.
constexpr int kEvenCutTiles = 2;
constexpr int kEvenCutPart = 32;

// Tokens lie by rising position, so what a row sees is the beginning of its shard.
__device__ RowSpan visible_span(const MlaDecodeArgs& args, const AttentionRow& row) {
  const int32_t size = args.config.block_size;
  const int32_t* idx = args.block_idx + row.block_begin;
  const int32_t place = row.position / size;
  int32_t last = row.num_blocks - 1;  // most often all blocks are seen
  if (last >= 0 && idx[last] > place) last = find_block(idx, last, place + 1) - 1;
  if (last < 0) return {0, 0, 0};
  const int32_t end = last * size + min(size, row.position - idx[last] * size + 1);
  return {end, 0, (end + kTileTokens - 1) / kTileTokens};
}

// The tile at `place` of the line of all tiles.
__device__ Stretch locate(const Params& params, int32_t num_rows, int32_t place) {
  int32_t low = 0;
  int32_t high = num_rows - 1;
  while (low < high) {  // the last row that begins at or before `place`
    const int32_t middle = (low + high + 1) / 2;
    if (params.workspace.spans[middle].tile_begin <= place) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const RowSpan span = params.workspace.spans[low];
  return {low, place - span.tile_begin, 0, span, params.args.rows[low], {}};
}

// Tiles of a stretch: the average, but no less than is worth a part of a row (short rows are not
// packed into few lanes while others are idle), or a little more where rows as long as the longest
// one are then cut evenly or not at all. The last lanes may get nothing: levelling stretches to one
// tile cuts more rows.
__device__ int32_t stretch_length(const Params& params, int32_t num_tiles, int32_t longest_row) {
  const int32_t least = min(kMinStretchTiles, longest_row);
  const int32_t average = max(least, (num_tiles + params.lanes - 1) / params.lanes);
  const int32_t parts = longest_row / average;
  const int32_t even = parts > 0 ? (longest_row + parts - 1) / parts
                                 : (average + longest_row - 1) / longest_row * longest_row;
  return even <= average + max(kEvenCutTiles, average / kEvenCutPart) ? even : average;
}

__device__ void look_up_first_blocks(const Params& params, Stretch& stretch) {
  for (int32_t i = 0; i < kTileBoxes; ++i) {
    const int32_t token = stretch.tile * kTileTokens + i * params.box_tokens;
    const int32_t at = token / params.args.config.block_size;
    const bool is_there = at < stretch.info.num_blocks;
    stretch.first_blocks[i] = is_there ? params.args.blocks[stretch.info.block_begin + at] : -1;
  }
}

// This thread's lane.
__device__ void cut_line(const Params& params, int32_t num_rows, int32_t num_tiles,
                         int32_t length) {
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const int32_t begin = lane * length;
  const int32_t end = min(num_tiles, begin + length);
  Stretch stretch = {};
  SharedRow begun_before = {0, 0, 0};
  SharedRow unfinished = {0, 0, 0};
  if (begin < end) {
    const auto share = [&](const Stretch& at) {
      const int32_t last_tile = at.span.tile_begin + at.span.num_tiles - 1;
      const int32_t first_lane = at.span.tile_begin / length;
      return SharedRow{at.info.row, first_lane, last_tile / length - first_lane + 1};
    };
    stretch = locate(params, num_rows, begin);
    stretch.count = end - begin;
    look_up_first_blocks(params, stretch);
    if (stretch.tile > 0) begun_before = share(stretch);
    const Stretch last = locate(params, num_rows, end - 1);
    const bool begins_here = last.span.tile_begin >= begin;
    if (begins_here && last.tile + 1 < last.span.num_tiles) unfinished = share(last);
  }
  params.workspace.stretches[lane] = stretch;
  params.workspace.shared_rows[2 * lane] = begun_before;
  params.workspace.shared_rows[2 * lane + 1] = unfinished;
  for (int32_t i = 0; i < params.groups; ++i) {
    params.workspace.counters[lane * params.groups + i] = 0;
  }
}

// The sum over the threads before this one, and that over all. All threads of the block.
struct RunningSum {
  int32_t before;
  int32_t all;
};
__device__ RunningSum add_up(int32_t value, int32_t (&totals)[kScheduleThreads]) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  totals[thread] = value;
  __syncthreads();
  for (int distance = 1; distance < kScheduleThreads; distance *= 2) {
    const int32_t before = thread >= distance ? totals[thread - distance] : 0;
    __syncthreads();
    totals[thread] += before;
    __syncthreads();
  }
  return {totals[thread] - value, totals[kScheduleThreads - 1]};
}

// What few heads leave of parts where the cache holds codes, as if nothing had been written. All
// blocks but the first.
__device__ void clear_parts(const Params& params) {
  const int64_t first = int64_t{blockIdx.x - 1} * kScheduleThreads + threadIdx.x;
  const int64_t stride = int64_t{gridDim.x - 1} * kScheduleThreads;
  const int64_t num_values = int64_t{2} * params.lanes * params.slot_heads * (kLatentDim / 4);
  for (int64_t i = first; i < num_values; i += stride) {
    reinterpret_cast<float4*>(params.workspace.partial_out)[i] =
        make_float4(0.0F, 0.0F, 0.0F, 0.0F);
  }
  for (int64_t i = first; i < 2 * params.slot_heads * kLanesMax; i += stride) {
    params.workspace.code_part_stats[i] = {};
  }
  for (int64_t i = first; i < 2 * kLanesMax; i += stride) params.workspace.partial_soon[i] = 0;
}

// Fills spans and stretches. The first block; every thread takes a run of adjacent rows.
__global__ void schedule_kernel(const __grid_constant__ Params params) {
  if (blockIdx.x > 0) {
    clear_parts(params);
    return;
  }
  __shared__ int32_t totals[kScheduleThreads];
  __shared__ int32_t longest_row;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t num_rows = *params.args.num_rows;
  const int32_t per_thread = (num_rows + kScheduleThreads - 1) / kScheduleThreads;
  const int32_t begin = min(num_rows, thread * per_thread);
  const int32_t end = min(num_rows, begin + per_thread);
  if (thread == 0) longest_row = 0;
  int32_t total = 0;
  int32_t longest = 0;
  for (int32_t i = begin; i < end; ++i) {
    RowSpan span = visible_span(params.args, params.args.rows[i]);
    span.tile_begin = total;
    total += span.num_tiles;
    longest = max(longest, span.num_tiles);
    params.workspace.spans[i] = span;
  }
  const RunningSum tiles = add_up(total, totals);
  atomicMax(&longest_row, longest);
  for (int32_t i = begin; i < end; ++i) params.workspace.spans[i].tile_begin += tiles.before;
  __syncthreads();  // the spans of all rows are written
  if (thread < params.lanes) {
    cut_line(params, num_rows, tiles.all, stretch_length(params, tiles.all, max(1, longest_row)));
  }
}

// What a launch can be given before its arguments are looked at.
struct GridShape {
  int32_t groups;
  int32_t lanes;
  int32_t slot_heads;
};

// Those that have a kernel of their own.
bool has_few_heads(const MlaDecodeConfig& config) {
  return config.num_heads <= kFewHeadsMax;
}

Result<GridShape> grid_shape(const MlaDecodeConfig& config) {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  const int32_t groups = divide_up(config.num_heads, kHeads);
  const int32_t slot_heads = !has_few_heads(config)   ? std::min(kHeads, config.num_heads)
                             : config.num_heads <= 16 ? 16
                                                      : kFewHeadsMax;
  return GridShape{groups, std::max(1, std::min(kLanesMax, num_sms / groups)), slot_heads};
}

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// One list gives offsets and total.
size_t lay_out(const MlaDecodeConfig& config, const GridShape& shape, void* base,
               Workspace* workspace) {
  auto* bytes = static_cast<uint8_t*>(base);
  size_t offset = 0;
  const auto take = [&](size_t size) {
    uint8_t* at = base == nullptr ? nullptr : bytes + offset;
    offset += align(size);
    return at;
  };
  const auto lanes = static_cast<size_t>(shape.lanes);
  const auto heads = 2 * lanes * static_cast<size_t>(shape.groups * shape.slot_heads);
  workspace->stretches = reinterpret_cast<Stretch*>(take(sizeof(Stretch) * lanes));
  workspace->shared_rows = reinterpret_cast<SharedRow*>(take(sizeof(SharedRow) * 2 * lanes));
  workspace->spans = reinterpret_cast<RowSpan*>(take(sizeof(RowSpan) * config.max_rows));
  workspace->partial_out =
      reinterpret_cast<float*>(take(heads * static_cast<size_t>(kLatentDim) * sizeof(float)));
  if (has_few_heads(config)) {
    const auto stats = static_cast<size_t>(2 * shape.slot_heads * kLanesMax);
    if (config.cache_type == CacheType::kBf16) {
      workspace->partial_stats = reinterpret_cast<float2*>(take(stats * sizeof(float2)));
    } else {
      workspace->code_part_stats = reinterpret_cast<uint4*>(take(stats * sizeof(uint4)));
      workspace->partial_soon = reinterpret_cast<uint32_t*>(take(2 * kLanesMax * sizeof(uint32_t)));
    }
  } else {
    workspace->partial_max = reinterpret_cast<float*>(take(heads * sizeof(float)));
    workspace->partial_sum = reinterpret_cast<float*>(take(heads * sizeof(float)));
  }
  workspace->counters = reinterpret_cast<int32_t*>(take(lanes * shape.groups * sizeof(int32_t)));
  return offset;
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

Status make_params(const MlaDecodeArgs& args, Params* params) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(const GridShape shape, grid_shape(args.config));
  params->args = args;
  params->groups = shape.groups;
  params->lanes = shape.lanes;
  params->slot_heads = shape.slot_heads;
  params->box_tokens = 16;
  while (params->box_tokens < kTileTokens &&
         args.config.block_size % (2 * params->box_tokens) == 0) {
    params->box_tokens *= 2;
  }
  params->scale_log2 = args.config.softmax_scale * kLog2E;
  lay_out(args.config, shape, args.workspace, &params->workspace);
  return ok_status();
}

// How many rows and blocks there are the tables say; nothing else is asked for.
constexpr int64_t kMatricesMax = int64_t{1} << 30;

Status describe_queries(Params* params) {
  const MlaDecodeArgs& args = params->args;
  const int64_t num_heads = args.config.num_heads;
  return make_tensor_map({.base = args.q,
                          .columns = kLatentKeyDim,
                          .rows = num_heads,
                          .matrices = kMatricesMax,
                          .row_stride = kLatentKeyDim,
                          .matrix_stride = num_heads * kLatentKeyDim,
                          .box_rows = has_few_heads(args.config) ? params->slot_heads : kHeads},
                         &params->q_map);
}

Status describe_cache(Params* params) {
  const MlaDecodeArgs& args = params->args;
  const int32_t block_size = args.config.block_size;
  const bool is_bf16 = args.config.cache_type == CacheType::kBf16;
  if (has_few_heads(args.config)) {
    if (!is_bf16) return ok_status();  // codes are copied as they lie
    return make_tensor_map({.base = args.cache,
                            .sizes = {64, 8, kChunks, block_size / 8, kMatricesMax},
                            .strides = {kLatentKeyDim, 64, 8 * kLatentKeyDim, args.block_stride},
                            .box = {64, 8, kPartChunks, params->box_tokens / 8, 1}},
                           &params->cache_map);
  }
  return make_tensor_map({.base = args.cache,
                          .columns = kLatentKeyDim,
                          .rows = block_size,
                          .matrices = kMatricesMax,
                          .row_stride = kLatentKeyDim,
                          .matrix_stride = args.block_stride,
                          .box_rows = is_bf16 ? params->box_tokens : kCodeTokens,
                          .value_bytes = is_bf16 ? 2 : 1},
                         &params->cache_map);
}

struct Attend {
  void (*kernel)(Params);
  int threads;
  size_t shared_bytes;
};

template <int kN>
Attend few_attend(bool is_bf16) {
  if (is_bf16) return {attend_few_kernel<kN>, kFewThreads, sizeof(FewShared<kN>)};
  return {few_codes::attend_few_kernel<kN>, few_codes::kFewCodeThreads,
          sizeof(few_codes::FewShared<kN>)};
}

// Above one group of heads the products are the limit, not the memory. Codes can be asked for only
// when the place of a tile is free, and with the scores first it is free later.
Attend choose_attend(const Params& params) {
  const bool is_bf16 = params.args.config.cache_type == CacheType::kBf16;
  if (has_few_heads(params.args.config)) {
    return params.slot_heads == 16 ? few_attend<16>(is_bf16) : few_attend<kFewHeadsMax>(is_bf16);
  }
  if (!is_bf16) {
    return {attend_kernel<false, CacheType::kE4m3>, kThreads, sizeof(Shared)};
  }
  return {params.groups > 1 ? attend_kernel<true, CacheType::kBf16>
                            : attend_kernel<false, CacheType::kBf16>,
          kThreads, sizeof(Shared)};
}

}  // namespace

Result<size_t> mla_decode_workspace_bytes(const MlaDecodeConfig& config) {
  NANOCP_RETURN_IF_ERROR(check_config(config));
  NANOCP_ASSIGN_OR_RETURN(const GridShape shape, grid_shape(config));
  Workspace workspace;
  return lay_out(config, shape, nullptr, &workspace);
}

Status launch_mla_schedule(const MlaDecodeArgs& args, cudaStream_t stream) {
  Params params = {};
  NANOCP_RETURN_IF_ERROR(make_params(args, &params));
  const bool leaves_words =
      has_few_heads(args.config) && args.config.cache_type == CacheType::kE4m3;
  const unsigned num_blocks = leaves_words ? 1 + kClearingBlocks : 1;
  schedule_kernel<<<num_blocks, kScheduleThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the attention schedule");
}

Status launch_mla_decode(const MlaDecodeArgs& args, cudaStream_t stream) {
  Params params = {};
  NANOCP_RETURN_IF_ERROR(make_params(args, &params));
  NANOCP_RETURN_IF_ERROR(describe_queries(&params));
  NANOCP_RETURN_IF_ERROR(describe_cache(&params));
  const Attend attend = choose_attend(params);
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(attend.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(attend.shared_bytes)),
                  "shared memory of latent attention"));
  const auto grid = static_cast<unsigned>(params.lanes * params.groups);
  return launch_overlapped(attend.kernel, dim3(grid), attend.threads, params, stream,
                           "latent attention", attend.shared_bytes);
}

}  // namespace nanocp::cuda
