// Return and merge in one kernel: all blocks run at once, first send what others wait for, and only
// then wait themselves. A unit of work is one row by 2048 values of its heads.
#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/shard_exchange.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int kThreads = 256;
constexpr int kUnitValues = kThreads * 8;
constexpr int kBlocksPerSm = 2;

// The 8 values of this thread in a unit, and their head.
struct Place {
  int32_t value;  // first value in the row; < 0: none
  int32_t head;
};

__device__ Place place_in(const ExchangeView& exchange, int32_t part) {
  const int32_t value = part * kUnitValues + static_cast<int32_t>(threadIdx.x) * 8;
  if (value >= exchange.partial_values) return {-1, 0};
  return {value, value / (exchange.partial_values / exchange.num_heads)};
}

__device__ void load_8(const float* from, float (&values)[8]) {
  const float4 low = reinterpret_cast<const float4*>(from)[0];
  const float4 high = reinterpret_cast<const float4*>(from)[1];
  const float loaded[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = loaded[i];
}

__device__ void return_unit(const FinishAttentionArgs& args, int32_t source, int32_t slot,
                            int32_t part) {
  const ExchangeView& exchange = args.exchange;
  const Place place = place_in(exchange, part);
  if (place.value < 0) return;
  const int64_t row = static_cast<int64_t>(1 + source) * exchange.max_rows + slot;
  const int64_t target = static_cast<int64_t>(exchange.self) * exchange.max_rows + slot;
  float values[8];
  load_8(args.out + row * exchange.partial_values + place.value, values);
  Bf16x8 packed;
  packed.set(values);
  *reinterpret_cast<Bf16x8*>(
      heap_at<__nv_bfloat16>(exchange, source, exchange.offsets.partial_out) +
      target * exchange.partial_values + place.value) = packed;
  if (place.value % (exchange.partial_values / exchange.num_heads) != 0) return;
  heap_at<float>(exchange, source,
                 exchange.offsets.partial_lse)[target * exchange.num_heads + place.head] =
      args.lse[row * exchange.num_heads + place.head];
}

// Units of all received rows are shared out over the blocks.
__device__ void return_partials(const FinishAttentionArgs& args, int32_t parts) {
  int32_t first = 0;  // unit number of the source's first unit
  const auto block = static_cast<int32_t>(blockIdx.x);
  const auto blocks = static_cast<int32_t>(gridDim.x);
  for (int32_t source = 0; source < args.exchange.num_instances; ++source) {
    if (source == args.exchange.self) continue;
    const int32_t units = args.step.num_received[source] * parts;
    for (int32_t unit = (block - first % blocks + blocks) % blocks; unit < units; unit += blocks) {
      return_unit(args, source, unit / parts, unit % parts);
    }
    first += units;
  }
}

__device__ bool receives_rows(const FinishAttentionArgs& args) {
  bool any = false;
  for (int32_t source = 0; source < args.exchange.num_instances; ++source) {
    any = any || args.step.num_received[source] > 0;
  }
  return any;
}

__device__ void wait_for_parts(const FinishAttentionArgs& args, int32_t row, uint64_t epoch) {
  const ExchangeView& exchange = args.exchange;
  const int32_t begin = args.step.merge_begin[row];
  const int32_t end = args.step.merge_begin[row + 1];
  for (int32_t i = begin + static_cast<int32_t>(threadIdx.x); i < end; i += kThreads) {
    const int32_t from = args.step.merges[i].destination;
    wait_for_flag(flag_of(exchange, exchange.self, FlagKind::kPartial, from), epoch, exchange.wait,
                  WaitPurpose::kPartial, from);
  }
  __syncthreads();
}

// values := the merge of all parts; returns the LSE over them.
__device__ float merge_parts(const FinishAttentionArgs& args, int32_t row, const Place& place,
                             float (&values)[8]) {
  const ExchangeView& exchange = args.exchange;
  const int64_t own = static_cast<int64_t>(row);
  float lse = args.lse[own * exchange.num_heads + place.head];
  load_8(args.out + own * exchange.partial_values + place.value, values);
  if (lse == -INFINITY) {
    for (float& value : values) value = 0.0F;
  }
  if (exchange.num_instances == 1) return lse;
  const auto* outs =
      heap_at<const __nv_bfloat16>(exchange, exchange.self, exchange.offsets.partial_out);
  const auto* lses = heap_at<const float>(exchange, exchange.self, exchange.offsets.partial_lse);
  for (int32_t i = args.step.merge_begin[row]; i < args.step.merge_begin[row + 1]; ++i) {
    const MergeEntry entry = args.step.merges[i];
    const int64_t slot = static_cast<int64_t>(entry.destination) * exchange.max_rows + entry.slot;
    const float other = __ldcg(lses + slot * exchange.num_heads + place.head);
    if (other == -INFINITY) continue;  // saw nothing: neutral
    const uint4 raw =
        __ldcg(reinterpret_cast<const uint4*>(outs + slot * exchange.partial_values + place.value));
    const float largest = fmaxf(lse, other);
    const float own_weight = lse == -INFINITY ? 0.0F : expf(lse - largest);
    const float other_weight = expf(other - largest);
    const float scale = 1.0F / (own_weight + other_weight);
    for (float& value : values) value *= own_weight * scale;
    reinterpret_cast<const Bf16x8&>(raw).add_to(values, other_weight * scale);
    lse = largest + logf(own_weight + other_weight);
  }
  return lse;
}

__device__ void merge_unit(const FinishAttentionArgs& args, int32_t row, int32_t part) {
  const Place place = place_in(args.exchange, part);
  if (place.value < 0) return;
  float values[8];
  const float lse = merge_parts(args, row, place, values);
  if (args.sinks != nullptr) {
    // exp(lse) / (exp(lse) + exp(sink)); lse = -infinity gives 0.
    const float scale = 1.0F / (1.0F + expf(args.sinks[place.head] - lse));
    for (float& value : values) value *= scale;
  }
  Bf16x8 packed;
  packed.set(values);
  *reinterpret_cast<Bf16x8*>(static_cast<__nv_bfloat16*>(args.merged) +
                             static_cast<int64_t>(row) * args.exchange.partial_values +
                             place.value) = packed;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    finish_kernel(const __grid_constant__ FinishAttentionArgs args) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const ExchangeView& exchange = args.exchange;
  const int32_t parts = (exchange.partial_values + kUnitValues - 1) / kUnitValues;
  const uint64_t epoch = exchange.num_instances > 1 ? number_of(args.epoch) : 0;
  if (args.part != ExchangePart::kMerge && receives_rows(args)) {
    return_partials(args, parts);
    if (is_last_to_finish(args.counter, gridDim.x)) {
      for (int32_t to = 0; to < exchange.num_instances; ++to) {
        if (args.step.num_received[to] == 0 || to == exchange.self) continue;
        set_flag(flag_of(exchange, to, FlagKind::kPartial, exchange.self), epoch);
      }
    }
  }
  if (args.part == ExchangePart::kReturn) return;
  const int32_t units = min(args.step.header->num_rows, args.rows) * parts;
  for (int32_t unit = static_cast<int32_t>(blockIdx.x); unit < units;
       unit += static_cast<int32_t>(gridDim.x)) {
    if (exchange.num_instances > 1) wait_for_parts(args, unit / parts, epoch);
    merge_unit(args, unit / parts, unit % parts);
  }
}

}  // namespace

Status launch_finish_attention(const FinishAttentionArgs& args, cudaStream_t stream) {
  const ExchangeView& exchange = args.exchange;
  const int32_t v_dim = exchange.num_heads > 0 ? exchange.partial_values / exchange.num_heads : 0;
  if (v_dim < 8 || v_dim % 8 != 0) {
    return unsupported("the merge of attention parts needs heads of a multiple of 8 values, not " +
                       std::to_string(v_dim));
  }
  NANOCP_ASSIGN_OR_RETURN(const int32_t num_sms, num_multiprocessors());
  return launch_overlapped(finish_kernel, dim3(static_cast<unsigned>(num_sms * kBlocksPerSm)),
                           kThreads, args, stream, "the attention merge");
}

}  // namespace nanocp::cuda
