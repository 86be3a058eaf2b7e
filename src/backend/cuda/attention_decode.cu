// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid) and merge. The
// work of all rows is cut into tiles of 64 tokens of one KV head, laid out in one line: row by row,
// head by head. Each block of the attend grid takes an equal stretch of that line. A stretch covers
// whole (row, head) segments, whose results are final, and at most one begun and one ended segment,
// whose partial results go to two slots of the workspace and are merged at the end.
#include <algorithm>
#include <string>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_decode_kernels.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

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
__device__ RowSpan visible_span(const AttentionDecodeArgs& args, const AttentionRow& row) {
  const int32_t size = args.config.block_size;
  const int32_t* idx = args.block_idx + row.block_begin;
  const int32_t last = find_block(idx, row.num_blocks, row.position / size + 1) - 1;
  if (last < 0) return {0, 0, 0, 0};
  const int32_t end = last * size + min(size, row.position - idx[last] * size + 1);
  int32_t begin = 0;
  if (args.config.sliding_window > 0) {
    const int32_t first = max(0, row.position - args.config.sliding_window + 1);
    const int32_t block = find_block(idx, row.num_blocks, first / size);
    if (block > last) return {0, 0, 0, 0};
    begin = block * size + max(0, first - idx[block] * size);
  }
  const int32_t tiles = (end + kTileTokens - 1) / kTileTokens - begin / kTileTokens;
  return {begin, end, 0, begin < end ? tiles : 0};
}

// The tile at `place` of the line of all tiles.
__device__ Stretch locate(const Params& params, int32_t num_rows, int32_t place) {
  const int32_t heads = params.args.config.num_kv_heads;
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
  return {low, in_row / span.num_tiles, in_row % span.num_tiles, 0, span, {}};
}

// This thread's block of the attend grid: its stretch, and the segment that it leaves unfinished.
__device__ void cut_line(const Params& params, int32_t num_rows, int32_t num_tiles) {
  const auto block = static_cast<int32_t>(threadIdx.x);
  // Equal stretches, the last ones empty: levelling them to one tile splits more segments and was
  // no faster where lengths are powers of two (docs/benchmarks).
  const int32_t length = max(kMinStretchTiles, (num_tiles + params.grid - 1) / params.grid);
  const int32_t begin = block * length;
  const int32_t end = min(num_tiles, begin + length);
  Stretch stretch = {};
  SplitSegment split = {0, 0, 0};
  if (begin < end) {
    stretch = locate(params, num_rows, begin);
    stretch.count = end - begin;
    stretch.info = params.args.rows[stretch.row];
    const Stretch last = locate(params, num_rows, end - 1);
    const int32_t segment_begin = end - 1 - last.tile;
    const int32_t segment_end = segment_begin + params.workspace.spans[last.row].num_tiles;
    if (segment_begin >= begin && segment_end > end) {
      split = {last.row, last.kv_head, (segment_end - 1) / length - block + 1};
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
  const int32_t all = totals[kScheduleThreads - 1] * params.args.config.num_kv_heads;
  __syncthreads();  // the spans of all rows are written
  if (static_cast<int32_t>(threadIdx.x) < params.grid) cut_line(params, num_rows, all);
}

size_t align(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// One list gives offsets and total.
size_t lay_out(const AttentionDecodeConfig& config, int grid, void* base, Workspace* workspace) {
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
      reinterpret_cast<float*>(take(slots * static_cast<size_t>(config.head_dim) * sizeof(float)));
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
  const int lane = static_cast<int>(threadIdx.x);
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

// Zero and minus infinity for the rows that see nothing, which no tile stands for. Those of other
// instances are waited for too: nothing is returned ahead of its query (comm.flow_control).
template <int kDim>
__device__ void write_neutral_rows(const Params& params, int head) {
  const int32_t num_rows = *params.args.num_rows;
  for (int32_t index = static_cast<int32_t>(blockIdx.x); index < num_rows;
       index += static_cast<int32_t>(gridDim.x)) {
    if (params.workspace.spans[index].num_tiles > 0) continue;
    const AttentionRow row = params.args.rows[index];
    if (head == 0 && threadIdx.x == 0 && is_remote(params, row)) {
      wait_for_source(params, row.source);
    }
    for (int32_t kv_head = 0; kv_head < params.args.config.num_kv_heads; ++kv_head) {
      const int64_t at = static_cast<int64_t>(row.row) * params.args.config.num_heads +
                         kv_head * params.group + head;
      if (threadIdx.x < kDim) params.args.out[at * kDim + threadIdx.x] = 0.0F;
      if (threadIdx.x == 0) params.args.lse[at] = kNothingSeen;
    }
  }
}

// One block per block of the attend grid and head of a group: joins the partial results of the
// segment that was left unfinished there.
template <int kDim>
__global__ void __launch_bounds__(kMergeThreads)
    merge_kernel(const __grid_constant__ Params params) {
  constexpr int kGroups = kMergeThreads / kDim;
  __shared__ float scales[kGridMax];
  __shared__ float sums[kMergeThreads];
  __shared__ float log_sum;
  cudaGridDependencySynchronize();
  const auto head = static_cast<int>(blockIdx.y);
  write_neutral_rows<kDim>(params, head);
  const SplitSegment split = params.workspace.splits[blockIdx.x];
  const int32_t num_parts = split.count;
  if (num_parts == 0) return;
  if (threadIdx.x < 32) weigh_partials(params, num_parts, head, scales, &log_sum);
  __syncthreads();
  const int dim = static_cast<int>(threadIdx.x) % kDim;
  float value = 0.0F;
#pragma unroll 4
  for (int32_t part = static_cast<int32_t>(threadIdx.x) / kDim; part < num_parts; part += kGroups) {
    const int64_t at = static_cast<int64_t>(partial_slot(part)) * kHeads + head;
    value += params.workspace.partial_out[at * kDim + dim] * scales[part];
  }
  sums[threadIdx.x] = value;
  __syncthreads();
  if (threadIdx.x >= kDim) return;
  for (int group = 1; group < kGroups; ++group) value += sums[group * kDim + dim];
  const int64_t at =
      static_cast<int64_t>(params.args.rows[split.row].row) * params.args.config.num_heads +
      split.kv_head * params.group + head;
  params.args.out[at * kDim + dim] = value;
  if (dim == 0) params.args.lse[at] = log_sum;
}

Result<int> attend_grid() {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return std::min(kGridMax, kBlocksPerSm * num_sms);
}

template <int kDim>
Status launch(const Params& params, cudaStream_t stream) {
  constexpr int kBytes = SharedLayout<kDim>::kTotalBytes;
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaFuncSetAttribute(attend_kernel<kDim>,
                                       cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
                  "shared memory of decode attention"));
  NANOCP_RETURN_IF_ERROR(launch_overlapped(attend_kernel<kDim>,
                                           dim3(static_cast<unsigned>(params.grid)), kThreads,
                                           params, stream, "decode attention", kBytes));
  const dim3 merge_grid(static_cast<unsigned>(params.grid), static_cast<unsigned>(params.group));
  return launch_overlapped(merge_kernel<kDim>, merge_grid, kMergeThreads, params, stream,
                           "the merge of decode attention");
}

Status check_config(const AttentionDecodeConfig& config) {
  if (config.head_dim != 64 && config.head_dim != 128) {
    return unsupported("decode attention covers head sizes 64 and 128, not " +
                       std::to_string(config.head_dim));
  }
  if (config.block_size < kWarpTokens || config.block_size % kWarpTokens != 0) {
    return invalid_argument("the block size must be a multiple of 16 tokens, not " +
                            std::to_string(config.block_size));
  }
  const bool groups_fit = config.num_kv_heads > 0 && config.num_heads % config.num_kv_heads == 0 &&
                          config.num_heads / config.num_kv_heads <= kHeads;
  if (!groups_fit) {
    return unsupported("decode attention covers up to 16 query heads per KV head, not " +
                       std::to_string(config.num_heads) + " heads over " +
                       std::to_string(config.num_kv_heads));
  }
  if (config.max_rows < 1) return invalid_argument("max_rows must be at least 1");
  return ok_status();
}

Result<Params> make_params(const AttentionDecodeArgs& args) {
  NANOCP_RETURN_IF_ERROR(check_config(args.config));
  NANOCP_ASSIGN_OR_RETURN(const int grid, attend_grid());
  Params params = {};
  params.args = args;
  params.grid = grid;
  params.group = args.config.num_heads / args.config.num_kv_heads;
  params.scale_log2 = args.config.softmax_scale * kLog2E;
  lay_out(args.config, grid, args.workspace, &params.workspace);
  return params;
}

}  // namespace

Result<size_t> attention_decode_workspace_bytes(const AttentionDecodeConfig& config) {
  NANOCP_RETURN_IF_ERROR(check_config(config));
  NANOCP_ASSIGN_OR_RETURN(const int grid, attend_grid());
  Workspace workspace;
  return lay_out(config, grid, nullptr, &workspace);
}

Status launch_attention_schedule(const AttentionDecodeArgs& args, cudaStream_t stream) {
  NANOCP_ASSIGN_OR_RETURN(const Params params, make_params(args));
  schedule_kernel<<<1, kScheduleThreads, 0, stream>>>(params);
  return cuda_status(cudaGetLastError(), "launch of the attention schedule");
}

Status launch_attention_decode(const AttentionDecodeArgs& args, cudaStream_t stream) {
  NANOCP_ASSIGN_OR_RETURN(const Params params, make_params(args));
  if (args.config.head_dim == 64) return launch<64>(params, stream);
  return launch<128>(params, stream);
}

}  // namespace nanocp::cuda
