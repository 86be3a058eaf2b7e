// Kernels: schedule (one block, once per step), then per layer attend (a fixed grid). The work of
// all rows is cut into tiles of 64 tokens of one KV head, laid out in one line: row by row, head by
// head. Each block of the attend grid takes an equal stretch of that line. A stretch covers whole
// (row, head) segments, whose results are final, and at most one begun and one ended segment, whose
// partial results go to two slots of the workspace; the last block of a segment joins its parts.
#include <algorithm>
#include <climits>
#include <string>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_decode_finish.cuh"
#include "backend/cuda/device/block_search.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

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
  return {low, in_row / span.num_tiles, in_row % span.num_tiles, 0, span, {}, {}, 0};
}

// Equal stretches of the line, the last ones shorter or empty. Where all rows are equally long,
// stretches are lengthened a little if they then end where segments do, or cut them evenly.
struct Cut {
  int32_t num_tiles;
  int32_t length;

  // `row_tiles`: of every row that has any, 0 where they differ.
  __device__ Cut(int32_t all_tiles, int32_t grid, int32_t row_tiles)
      : num_tiles(all_tiles), length(max(kMinStretchTiles, (all_tiles + grid - 1) / grid)) {
    if (row_tiles == 0) return;
    const int32_t parts = max(1, row_tiles / length);
    const int32_t even =
        length >= row_tiles ? (length + row_tiles - 1) / row_tiles * row_tiles : row_tiles / parts;
    const bool is_even = length >= row_tiles || even * parts == row_tiles;
    if (is_even && even * 16 <= length * 17) length = even;
  }
  __device__ int32_t begin_of(int32_t block) const { return min(num_tiles, block * length); }
  __device__ int32_t block_of(int32_t tile) const { return tile / length; }
};

// The blocks of the segment whose tile `found` is.
__device__ Sharing sharing_of(const Params& params, const Cut& cut, const Stretch& found,
                              int32_t place) {
  const int32_t begin = place - found.tile;
  const int32_t origin = cut.block_of(begin);
  return {origin, cut.block_of(begin + found.span.num_tiles - 1) - origin + 1};
}

// This thread's block of the attend grid.
__device__ void cut_line(const Params& params, int32_t num_rows, const Cut& cut) {
  const auto block = static_cast<int32_t>(threadIdx.x);
  const int32_t begin = cut.begin_of(block);
  const int32_t end = cut.begin_of(block + 1);
  Stretch stretch = {};
  if (begin < end) {
    stretch = locate(params, num_rows, begin);
    stretch.count = end - begin;
    stretch.info = params.args.rows[stretch.row];
    stretch.first = sharing_of(params, cut, stretch, begin);
    const Stretch last = locate(params, num_rows, end - 1);
    stretch.last_parts = sharing_of(params, cut, last, end - 1).parts;
  }
  params.workspace.stretches[block] = stretch;
  params.workspace.counters[block] = 0;
}

// Fills the tables of the workspace. One block; every thread takes a run of adjacent rows.
__global__ void schedule_kernel(const __grid_constant__ Params params) {
  __shared__ int32_t totals[kScheduleThreads];
  __shared__ int32_t num_neutral;
  __shared__ int32_t least;  // tiles of a row that has any
  __shared__ int32_t most;
  if (threadIdx.x == 0) {
    num_neutral = most = 0;
    least = INT_MAX;
  }
  __syncthreads();
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
    if (span.num_tiles > 0) {
      atomicMin(&least, span.num_tiles);
      atomicMax(&most, span.num_tiles);
      continue;
    }
    params.workspace.neutral_rows[1 + atomicAdd(&num_neutral, 1)] = i;
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
  if (static_cast<int32_t>(threadIdx.x) < params.grid) {
    cut_line(params, num_rows, Cut(all, params.grid, least == most ? most : 0));
  }
  if (threadIdx.x == 0) params.workspace.neutral_rows[0] = num_neutral;
  // The attend kernel reads some of this before it waits for the end of this kernel.
  __syncthreads();
  if (threadIdx.x == 0) asm volatile("fence.acq_rel.gpu;" ::: "memory");
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
  const auto slots = static_cast<size_t>(2 * grid * kHeadsMax);
  const auto blocks = static_cast<size_t>(grid);
  const auto rows = static_cast<size_t>(config.max_rows);
  workspace->stretches = reinterpret_cast<Stretch*>(take(sizeof(Stretch) * blocks));
  workspace->spans = reinterpret_cast<RowSpan*>(take(sizeof(RowSpan) * rows));
  workspace->neutral_rows = reinterpret_cast<int32_t*>(take(sizeof(int32_t) * (1 + rows)));
  workspace->partial_out =
      reinterpret_cast<float*>(take(slots * static_cast<size_t>(config.head_dim) * sizeof(float)));
  workspace->partial_stats = reinterpret_cast<float2*>(take(slots * sizeof(float2)));
  workspace->counters = reinterpret_cast<int32_t*>(take(blocks * sizeof(int32_t)));
  return offset;
}

Result<int> attend_grid() {
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return std::min(kGridMax, kBlocksPerSm * num_sms);
}

template <typename S>
Status launch(const Params& params, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaFuncSetAttribute(attend_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           S::kSharedBytes),
      "shared memory of decode attention"));
  return launch_overlapped(attend_kernel<S>, dim3(static_cast<unsigned>(params.grid)), kThreads,
                           params, stream, "decode attention", S::kSharedBytes);
}

template <int kDim, CacheType kType>
Status launch_for_group(const Params& params, cudaStream_t stream) {
  return params.group <= 8 ? launch<Shape<kDim, kType, 1>>(params, stream)
                           : launch<Shape<kDim, kType, 2>>(params, stream);
}

template <int kDim>
Status launch_for_cache(const Params& params, cudaStream_t stream) {
  return params.args.config.cache_type == CacheType::kE4m3
             ? launch_for_group<kDim, CacheType::kE4m3>(params, stream)
             : launch_for_group<kDim, CacheType::kBf16>(params, stream);
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
                          config.num_heads / config.num_kv_heads <= kHeadsMax;
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
  const int32_t sixteens = args.config.block_size / kWarpTokens;
  params.block_factor =
      sixteens == 1 ? 0U : static_cast<uint32_t>((uint64_t{1} << 32) / sixteens + 1);
  params.group = args.config.num_heads / args.config.num_kv_heads;
  params.scale_log2 = args.config.softmax_scale * kLog2E;
  if (args.config.cache_type == CacheType::kE4m3) params.scale_log2 *= kCodeRest;
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
  return args.config.head_dim == 64 ? launch_for_cache<64>(params, stream)
                                    : launch_for_cache<128>(params, stream);
}

}  // namespace nanocp::cuda
