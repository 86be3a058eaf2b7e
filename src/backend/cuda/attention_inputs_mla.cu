// Latent attention: the norms are a block per row with a thread per eight values, the rotation of
// queries a group of lanes per head, and the sends copies of chunks by a grid of a fixed size.
#include <algorithm>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/attention_inputs_device.cuh"
#include "backend/cuda/row_ops.h"

namespace nanocp::cuda {
namespace {

constexpr int32_t kCopyThreads = 256;
constexpr int32_t kCopyUnroll = 4;
constexpr int32_t kCopyGridMax = 264;  // two blocks on each processor
constexpr int32_t kRopeDim = 64;

// blockIdx.y 0: KV latent and rotary key of a row, 1: its query latent.
template <CacheType kType>
__global__ void prepare_mla_latent_kernel(const __grid_constant__ PrepareMlaLatentArgs args) {
  __shared__ float sums[32];
  const bool is_query = blockIdx.y == 1;
  const auto row = static_cast<int32_t>(blockIdx.x);
  const int32_t rank = is_query ? args.q_rank : args.kv_rank;
  const int32_t column = static_cast<int32_t>(threadIdx.x) * kVectorValues;
  const bool in_rope = !is_query && column >= rank && column < rank + args.rope_dim;
  const LaneRotation rotation = lane_rotation<kRopeDim / kVectorValues>(args.rotary);
  Vector8 weight = {};
  if (column < rank) weight = load_constant(is_query ? args.q_norm : args.kv_norm, column);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  if (row >= args.step.header->num_rows) return;
  const int64_t from = row * args.row_stride + (is_query ? args.q_column : args.kv_column) + column;
  Vector8 x = {};
  if (column < rank || in_rope) x = load_bf16(args.latents, from);
  const float sum = block_sum(column < rank ? sum_of_squares(x) : 0.0F, sums);
  if (column < rank) scale(x, rsqrtf(sum / static_cast<float>(rank) + args.norm_eps), weight);
  if (is_query) {
    if (column < rank) store_bf16(args.q_latent, int64_t{row} * rank + column, x);
    return;
  }
  // The rotary key is in eight lanes of one warp: the rank is a multiple of 64.
  if (__any_sync(0xffffffffU, in_rope)) {
    Vector8 rotated = x;
    rotate<kRopeDim / kVectorValues>(rotated, rotation, args.step.positions[row]);
    if (in_rope) x = rotated;
  }
  float largest = 0.0F;
  if constexpr (kType == CacheType::kE4m3) {  // of the latent and the rotary key together
#pragma unroll
    for (const float value : x.v) largest = fmaxf(largest, fabsf(value));
    __syncthreads();  // all have read the sums
    largest = block_max(largest, sums);
  }
  const KvTarget target = args.step.kv_targets[row];
  const int32_t width = rank + args.rope_dim;
  if (target.slot < 0 || column >= width) return;
  uint8_t* cache = args.exchange.base[target.instance] + args.cache.k_offset;
  const int64_t exponent = column > 0 ? -1
                                      : exponent_in_cache(args.cache, target.slot, 0) +
                                            int64_t{args.cache.block_size} * width;
  store_cache<kType>(cache, token_in_cache(args.cache, target.slot, width) + column, x, largest,
                     exponent);
}

__global__ void __launch_bounds__(kThreads)
    prepare_mla_query_kernel(const __grid_constant__ PrepareMlaQueryArgs args) {
  constexpr int32_t kLanes = kRopeDim / kVectorValues;
  constexpr int64_t kGroups = kThreads / kLanes;
  const auto index = static_cast<int64_t>(blockIdx.x) * kGroups + threadIdx.x / kLanes;
  const auto row = static_cast<int32_t>(min(index / args.num_heads, int64_t{args.rows} - 1));
  const auto head = static_cast<int32_t>(index % args.num_heads);
  const int32_t column = static_cast<int32_t>(threadIdx.x) % kLanes * kVectorValues;
  const LaneRotation rotation = lane_rotation<kLanes>(args.rotary);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t num_rows = args.step.header->num_rows;
  const int32_t from = head * (args.nope_dim + kRopeDim) + args.nope_dim + column;
  Vector8 x = load_bf16(args.q, row * args.q_stride + from);
  rotate<kLanes>(x, rotation, args.step.positions[row]);
  if (index >= static_cast<int64_t>(num_rows) * args.num_heads) return;
  const int32_t to = head * (args.kv_rank + kRopeDim) + args.kv_rank + column;
  store_bf16(query_row(args.exchange, args.exchange.self, row), to, x);
}

// The unit is a chunk of kCopyThreads * kCopyUnroll vectors of one send.
__global__ void __launch_bounds__(kCopyThreads)
    send_queries_kernel(const __grid_constant__ SendQueriesArgs args) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t vectors = args.exchange.query_values / kVectorValues;
  const int32_t chunk_vectors = kCopyThreads * kCopyUnroll;
  const int32_t chunks = (vectors + chunk_vectors - 1) / chunk_vectors;
  const int32_t num_units = args.step.header->num_sends * chunks;
  for (auto unit = static_cast<int32_t>(blockIdx.x); unit < num_units;
       unit += static_cast<int32_t>(gridDim.x)) {
    const QuerySend send = args.step.sends[unit / chunks];
    const auto* from =
        reinterpret_cast<const uint4*>(query_row(args.exchange, args.exchange.self, send.row));
    auto* to = reinterpret_cast<uint4*>(send_row(args.exchange, send));
    const int32_t begin = unit % chunks * chunk_vectors + static_cast<int32_t>(threadIdx.x);
    uint4 values[kCopyUnroll];
#pragma unroll
    for (int i = 0; i < kCopyUnroll; ++i) {
      if (begin + i * kCopyThreads < vectors) values[i] = from[begin + i * kCopyThreads];
    }
#pragma unroll
    for (int i = 0; i < kCopyUnroll; ++i) {
      if (begin + i * kCopyThreads < vectors) to[begin + i * kCopyThreads] = values[i];
    }
  }
  const int32_t num_blocks = min(num_units, static_cast<int32_t>(gridDim.x));
  if (static_cast<int32_t>(blockIdx.x) >= num_blocks) return;
  raise_query_flags(args.step, args.exchange, args.epoch, args.counter, num_blocks, true);
}

}  // namespace

Status launch_prepare_mla_latent(const PrepareMlaLatentArgs& args, cudaStream_t stream) {
  const int32_t widest = std::max(args.kv_rank + args.rope_dim, args.q_rank);
  if (args.rows < 1 || args.rope_dim != kRopeDim || args.kv_rank < 64 || args.kv_rank % 64 != 0 ||
      args.q_rank < 0 || args.q_rank % kVectorValues != 0 || widest > kNormHiddenMax) {
    return unsupported("latents of " + std::to_string(args.kv_rank) + " + " +
                       std::to_string(args.rope_dim) + " and " + std::to_string(args.q_rank) +
                       " values: a multiple of 64, 64 and a multiple of 8 are covered");
  }
  if (args.row_stride % kVectorValues != 0 || args.kv_column % kVectorValues != 0 ||
      args.q_column % kVectorValues != 0) {
    return invalid_argument("latents must begin at multiples of 8 values");
  }
  if (args.cache.block_size < 1) return invalid_argument("latents: no cache layout");
  NANOCP_RETURN_IF_ERROR(check_rotary(args.rotary, kRopeDim, 2 * kVectorValues));
  const dim3 grid(static_cast<unsigned>(args.rows), args.q_rank > 0 ? 2 : 1);
  const auto kernel = args.cache.type == CacheType::kBf16
                          ? prepare_mla_latent_kernel<CacheType::kBf16>
                          : prepare_mla_latent_kernel<CacheType::kE4m3>;
  return launch_overlapped(kernel, grid, threads_of_row(widest), args, stream,
                           "latent attention inputs");
}

Status launch_prepare_mla_query(const PrepareMlaQueryArgs& args, cudaStream_t stream) {
  if (args.rows < 1 || args.num_heads < 1 || args.rope_dim != kRopeDim ||
      args.nope_dim % kVectorValues != 0 || args.kv_rank % kVectorValues != 0 ||
      args.q_stride % kVectorValues != 0) {
    return unsupported("latent queries of " + std::to_string(args.nope_dim) + " + " +
                       std::to_string(args.rope_dim) + " values: a multiple of 8, and 64");
  }
  if (args.exchange.query_values != args.num_heads * (args.kv_rank + args.rope_dim)) {
    return invalid_argument("latent queries: the exchange holds queries of another size");
  }
  NANOCP_RETURN_IF_ERROR(check_rotary(args.rotary, kRopeDim, 2 * kVectorValues));
  const auto grid = static_cast<unsigned>(
      divide_up(int64_t{args.rows} * args.num_heads, kThreads * kVectorValues / kRopeDim));
  return launch_overlapped(prepare_mla_query_kernel, dim3(grid), kThreads, args, stream,
                           "latent queries");
}

Status launch_send_queries(const SendQueriesArgs& args, cudaStream_t stream) {
  if (args.exchange.num_instances <= 1) return ok_status();
  NANOCP_RETURN_IF_ERROR(check_exchange(args.exchange, args.epoch, args.counter));
  const int64_t chunks =
      divide_up(args.exchange.query_values, kCopyThreads * kCopyUnroll * kVectorValues);
  const int64_t units = args.rows * chunks * (args.exchange.num_instances - 1);
  const auto grid = static_cast<unsigned>(std::clamp<int64_t>(units, 1, kCopyGridMax));
  return launch_overlapped(send_queries_kernel, dim3(grid), kCopyThreads, args, stream,
                           "sending of queries");
}

}  // namespace nanocp::cuda
