// Heads are worked on by groups of lanes with eight values each. The unit of prepare_gqa is one
// head of one row, or one query head of one send: a split row's query is computed once more for
// each of its destinations and written there straight away, so that no table from rows to sends is
// needed and nothing waits for the local copy.
#include <algorithm>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/attention_inputs_device.cuh"

namespace nanocp::cuda {
namespace {

constexpr int32_t kSendBlocksMax = 1056;  // eight on each of 132 processors

// One head of a row.
struct HeadUnit {
  int32_t row;
  int32_t head;  // query heads, then K, then V heads
};

__device__ int32_t heads_per_row(const PrepareGqaArgs& args) {
  return args.num_heads + 2 * args.num_kv_heads;
}
__device__ bool is_query(const PrepareGqaArgs& args, int32_t head) {
  return head < args.num_heads;
}
__device__ bool is_value(const PrepareGqaArgs& args, int32_t head) {
  return head >= args.num_heads + args.num_kv_heads;
}

// The eight values of a head that this thread works on.
template <int kLanes>
__device__ int32_t lane_column() {
  return static_cast<int32_t>(threadIdx.x) % kLanes * kVectorValues;
}

// What does not change from step to step, read ahead of the kernel before.
struct HeadConstants {
  Vector8 bias;
  Vector8 norm;
  bool has_norm;
};

template <int kLanes>
__device__ HeadConstants load_constants(const PrepareGqaArgs& args, int32_t head) {
  const int32_t column = lane_column<kLanes>();
  HeadConstants out = {};
  if (args.bias != nullptr) {
    out.bias = load_constant(args.bias, head * kLanes * kVectorValues + column);
  }
  const float* norm = is_query(args, head) ? args.q_norm : args.k_norm;
  out.has_norm = norm != nullptr && !is_value(args, head);
  if (out.has_norm) out.norm = load_constant(norm, column);
  return out;
}

// Bias, norm and rotation, as far as the head has them. All lanes of the warp call it, though their
// groups may hold heads of different kinds.
template <int kLanes>
__device__ void finish_head(const PrepareGqaArgs& args, int32_t head, int32_t position,
                            const HeadConstants& constants, const LaneRotation& rotation,
                            Vector8& x) {
  if (args.bias != nullptr) add(x, constants.bias);
  if (args.q_norm != nullptr || args.k_norm != nullptr) {
    const float sum = group_sum<kLanes>(sum_of_squares(x));
    const float factor = rsqrtf(sum / (kLanes * kVectorValues) + args.norm_eps);
    if (constants.has_norm) scale(x, factor, constants.norm);
  }
  if (args.rotary.rotary_dim == 0) return;
  Vector8 rotated = x;
  rotate<kLanes>(rotated, rotation, position);
  if (!is_value(args, head)) x = rotated;
}

template <int kLanes>
__device__ Vector8 load_head(const PrepareGqaArgs& args, const HeadUnit& unit) {
  const int32_t column = unit.head * kLanes * kVectorValues + lane_column<kLanes>();
  return load_bf16(args.qkv, unit.row * args.qkv_stride + column);
}

// The largest magnitude of a head. All lanes of the warp call it.
template <int kLanes>
__device__ float largest_of_head(const Vector8& x) {
  float largest = 0.0F;
#pragma unroll
  for (const float value : x.v) largest = fmaxf(largest, fabsf(value));
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, distance));
  }
  return largest;
}

// Writes a head of an own row; true if it went to a peer.
template <int kLanes, CacheType kType>
__device__ bool store_own(const PrepareGqaArgs& args, const HeadUnit& unit, const KvTarget& target,
                          const Vector8& x, float largest) {
  constexpr int32_t kDim = kLanes * kVectorValues;
  const int32_t column = lane_column<kLanes>();
  if (is_query(args, unit.head)) {
    store_bf16(query_row(args.exchange, args.exchange.self, unit.row), unit.head * kDim + column,
               x);
    return false;
  }
  if (target.slot < 0) return false;
  const bool value = is_value(args, unit.head);
  const int32_t head = unit.head - args.num_heads - (value ? args.num_kv_heads : 0);
  uint8_t* cache =
      args.exchange.base[target.instance] + (value ? args.cache.v_offset : args.cache.k_offset);
  const int64_t index =
      token_in_cache(args.cache, target.slot, kDim) + head * args.cache.head_stride + column;
  int64_t exponent_index = -1;
  if (column == 0) {
    exponent_index = exponent_in_cache(args.cache, target.slot, args.num_kv_heads) +
                     int64_t{head} * args.cache.block_size;
  }
  store_cache<kType>(cache, index, x, largest, exponent_index);
  return target.instance != args.exchange.self;
}

// K and V heads of all rows of the bucket come first, so that few blocks write to peers.
__device__ HeadUnit own_unit(const PrepareGqaArgs& args, int32_t index) {
  const int32_t kv_heads = 2 * args.num_kv_heads;
  const int32_t query = index - args.rows * kv_heads;
  if (query < 0) return {index / kv_heads, args.num_heads + index % kv_heads};
  return {query / args.num_heads, query % args.num_heads};
}

// One head of an own row per group of lanes. Rows of the whole bucket have memory, so that nothing
// waits for the number of rows but the writes. True if something went to a peer.
template <int kLanes, CacheType kType>
__device__ bool prepare_own(const PrepareGqaArgs& args, int32_t index) {
  const int32_t place = min(index, args.rows * heads_per_row(args) - 1);
  const HeadUnit unit = own_unit(args, place);
  const HeadConstants constants = load_constants<kLanes>(args, unit.head);
  const LaneRotation rotation = lane_rotation<kLanes>(args.rotary);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t num_rows = args.step.header->num_rows;
  const int32_t position = args.step.positions[unit.row];
  KvTarget target = {};
  if (!is_query(args, unit.head)) target = args.step.kv_targets[unit.row];
  Vector8 x = load_head<kLanes>(args, unit);
  finish_head<kLanes>(args, unit.head, position, constants, rotation, x);
  const float largest = kType == CacheType::kE4m3 ? largest_of_head<kLanes>(x) : 0.0F;
  if (index != place || unit.row >= num_rows) return false;
  return store_own<kLanes, kType>(args, unit, target, x, largest);
}

// Query heads of sends, by strides of the blocks that are left for them.
template <int kLanes>
__device__ bool prepare_sends(const PrepareGqaArgs& args, int32_t first_block) {
  constexpr int32_t kGroups = kThreads / kLanes;
  const LaneRotation rotation = lane_rotation<kLanes>(args.rotary);
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const int32_t num_units = args.step.header->num_sends * args.num_heads;
  const int32_t stride = (static_cast<int32_t>(gridDim.x) - first_block) * kGroups;
  const int32_t begin = (static_cast<int32_t>(blockIdx.x) - first_block) * kGroups;
  for (int32_t i = begin; i < num_units; i += stride) {
    const int32_t index = i + static_cast<int32_t>(threadIdx.x) / kLanes;
    const int32_t place = min(index, num_units - 1);  // groups beyond the end store nothing
    const QuerySend send = args.step.sends[place / args.num_heads];
    const HeadUnit unit = {send.row, place % args.num_heads};
    const HeadConstants constants = load_constants<kLanes>(args, unit.head);
    Vector8 x = load_head<kLanes>(args, unit);
    finish_head<kLanes>(args, unit.head, args.step.positions[unit.row], constants, rotation, x);
    if (index != place) continue;
    store_bf16(send_row(args.exchange, send),
               unit.head * kLanes * kVectorValues + lane_column<kLanes>(), x);
  }
  return begin < num_units;
}

// The first blocks are for own rows, the others for sends. Only those with K and V heads and those
// with sends count for the flags.
template <int kLanes, CacheType kType>
__global__ void __launch_bounds__(kThreads)
    prepare_gqa_kernel(const __grid_constant__ PrepareGqaArgs args) {
  constexpr int32_t kGroups = kThreads / kLanes;
  const auto block = static_cast<int32_t>(blockIdx.x);
  const int32_t own_blocks = (args.rows * heads_per_row(args) + kGroups - 1) / kGroups;
  bool wrote_to_peers = false;
  if (block < own_blocks) {
    const int32_t group = static_cast<int32_t>(threadIdx.x) / kLanes;
    wrote_to_peers = prepare_own<kLanes, kType>(args, block * kGroups + group);
  } else {
    wrote_to_peers = prepare_sends<kLanes>(args, own_blocks);
  }
  if (args.exchange.num_instances <= 1) return;
  const int32_t num_sends = args.step.header->num_sends;
  const int32_t kv_blocks = (args.rows * 2 * args.num_kv_heads + kGroups - 1) / kGroups;
  const int32_t send_blocks = min((num_sends * args.num_heads + kGroups - 1) / kGroups,
                                  static_cast<int32_t>(gridDim.x) - own_blocks);
  if (num_sends == 0 || (block >= kv_blocks && block < own_blocks) ||
      block >= own_blocks + send_blocks)
    return;
  raise_query_flags(args.step, args.exchange, args.epoch, args.counter, kv_blocks + send_blocks,
                    wrote_to_peers);
}

Status check_gqa(const PrepareGqaArgs& args) {
  if (args.rows < 1) return invalid_argument("attention inputs need at least one row");
  if (args.head_dim != 64 && args.head_dim != 128) {
    return unsupported("attention inputs cover head sizes 64 and 128, not " +
                       std::to_string(args.head_dim));
  }
  const int64_t width = int64_t{args.num_heads + 2 * args.num_kv_heads} * args.head_dim;
  if (args.num_heads < 1 || args.num_kv_heads < 1 || args.qkv_stride < width ||
      args.qkv_stride % kVectorValues != 0) {
    return invalid_argument("attention inputs: a row stride of " + std::to_string(args.qkv_stride) +
                            " for " + std::to_string(width) + " values");
  }
  if (args.exchange.query_values != args.num_heads * args.head_dim) {
    return invalid_argument("attention inputs: the exchange holds queries of another size");
  }
  if (args.cache.block_size < 1) return invalid_argument("attention inputs: no cache layout");
  NANOCP_RETURN_IF_ERROR(check_rotary(args.rotary, args.head_dim, 2 * kVectorValues));
  return check_exchange(args.exchange, args.epoch, args.counter);
}

template <int kLanes>
Status launch_gqa(const PrepareGqaArgs& args, cudaStream_t stream) {
  constexpr int32_t kGroups = kThreads / kLanes;
  const int32_t heads = args.num_heads + 2 * args.num_kv_heads;
  int32_t grid = divide_up(int64_t{args.rows} * heads, kGroups);
  if (args.exchange.num_instances > 1) {
    const int64_t sends = int64_t{args.rows} * (args.exchange.num_instances - 1);
    grid += std::min(kSendBlocksMax, divide_up(sends * args.num_heads, kGroups));
  }
  const auto kernel = args.cache.type == CacheType::kBf16
                          ? prepare_gqa_kernel<kLanes, CacheType::kBf16>
                          : prepare_gqa_kernel<kLanes, CacheType::kE4m3>;
  return launch_overlapped(kernel, dim3(static_cast<unsigned>(grid)), kThreads, args, stream,
                           "attention inputs");
}

}  // namespace

Status launch_prepare_gqa(const PrepareGqaArgs& args, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(check_gqa(args));
  return args.head_dim == 64 ? launch_gqa<64 / kVectorValues>(args, stream)
                             : launch_gqa<128 / kVectorValues>(args, stream);
}

}  // namespace nanocp::cuda
