// Device code and checks shared by attention_inputs.cu and attention_inputs_mla.cu: rotation,
// places in heaps, storing in a cache,
// and the raising of query flags.
#pragma once

#include <cuda_fp8.h>

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/device/e4m3.cuh"
#include "backend/cuda/device/row_vector.cuh"
#include "backend/cuda/launch_overlapped.h"

namespace nanocp::cuda {
namespace {

using namespace device;  // NOLINT(google-build-using-namespace)

constexpr int32_t kThreads = 128;
constexpr double kTurnsPerRadian = 0.15915494309189535;
constexpr double kRoundToInteger = 6755399441055744.0;  // 1.5 * 2^52

// cos and sin of position * frequency. The product and its reduction are in double: float angles
// are off by 1e-2 at a million tokens.
__device__ float2 cos_sin(int32_t position, float frequency, float scale) {
  const double turns =
      static_cast<double>(position) * static_cast<double>(frequency) * kTurnsPerRadian;
  const double whole = (turns + kRoundToInteger) - kRoundToInteger;
  float sin = 0.0F;
  float cos = 0.0F;
  sincospif(2.0F * static_cast<float>(turns - whole), &sin, &cos);
  return {cos * scale, sin * scale};
}

// What one lane needs to rotate its eight values of a head that lies in kLanes lanes: known before
// the data is.
struct LaneRotation {
  Vector8 frequencies;  // of the lane's values; of its four pairs when interleaved
  float scale;
  int partner;  // the lane that holds the other halves of the pairs
  bool interleaved;
  bool turns;
  bool low;  // this lane holds the first halves
};

template <int kLanes>
__device__ LaneRotation lane_rotation(const RotaryView& rotary) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int32_t first = lane * kVectorValues;
  const int32_t half = rotary.rotary_dim / 2;
  LaneRotation out = {};
  out.scale = rotary.cos_sin_scale;
  out.interleaved = rotary.interleaved;
  out.turns = first < rotary.rotary_dim;
  out.low = first < half;
  out.partner = lane;
  if (!out.turns) return out;
  if (rotary.interleaved) {
    const float4 pairs = __ldg(reinterpret_cast<const float4*>(rotary.frequencies + first / 2));
    out.frequencies = {{pairs.x, pairs.y, pairs.z, pairs.w, 0.0F, 0.0F, 0.0F, 0.0F}};
  } else {
    out.partner += out.low ? half / kVectorValues : -half / kVectorValues;
    out.frequencies = load_constant(rotary.frequencies, out.low ? first : first - half);
  }
  return out;
}

// All lanes of the warp call it.
template <int kLanes>
__device__ void rotate(Vector8& x, const LaneRotation& rotation, int32_t position) {
  if (rotation.interleaved) {
#pragma unroll
    for (int i = 0; i < kVectorValues; i += 2) {
      const float2 turn = cos_sin(position, rotation.frequencies.v[i / 2], rotation.scale);
      const float a = x.v[i];
      const float b = x.v[i + 1];
      x.v[i] = rotation.turns ? a * turn.x - b * turn.y : a;
      x.v[i + 1] = rotation.turns ? b * turn.x + a * turn.y : b;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kVectorValues; ++i) {
    const float other = __shfl_sync(0xffffffffU, x.v[i], rotation.partner, kLanes);
    const float2 turn = cos_sin(position, rotation.frequencies.v[i], rotation.scale);
    const float rotated = x.v[i] * turn.x + (rotation.low ? -other : other) * turn.y;
    x.v[i] = rotation.turns ? rotated : x.v[i];
  }
}

__device__ uint8_t* query_row(const ExchangeView& exchange, int32_t instance, int64_t row) {
  return exchange.base[instance] + exchange.offsets.query +
         row * exchange.query_values * static_cast<int64_t>(sizeof(__nv_bfloat16));
}

// Where `send` goes: the row of this instance's receive slot at the destination.
__device__ uint8_t* send_row(const ExchangeView& exchange, const QuerySend& send) {
  const int64_t row = static_cast<int64_t>(1 + exchange.self) * exchange.max_rows + send.slot;
  return query_row(exchange, send.destination, row);
}

__device__ void fence_gpu() {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}
__device__ void fence_system() {
  asm volatile("fence.acq_rel.sys;" ::: "memory");
}

// Raises the query flags once `num_blocks` blocks of the grid have come here with what they wrote
// to peers. Which blocks come follows from the step alone. All threads of a block call it.
__device__ void raise_query_flags(const DeviceStep& step, const ExchangeView& exchange,
                                  const ExchangeEpoch& epoch, uint32_t* counter, int32_t num_blocks,
                                  bool wrote_to_peers) {
  const bool block_wrote = __syncthreads_or(static_cast<int>(wrote_to_peers)) != 0;
  if (threadIdx.x >= 32) return;
  const auto lane = static_cast<int32_t>(threadIdx.x);
  const auto last = static_cast<uint32_t>(num_blocks - 1);
  bool is_last = false;
  if (lane == 0) {
    if (block_wrote) fence_gpu();  // what the block wrote, seen through the barrier
    is_last = atomicInc(counter, last) == last;
  }
  if (!__any_sync(0xffffffffU, is_last)) return;
  uint64_t* flag = nullptr;  // of instance `lane`, if rows were sent there
  if (lane < exchange.num_instances && lane != exchange.self && step.num_sent[lane] > 0) {
    auto* flags = reinterpret_cast<uint64_t*>(exchange.base[lane] + exchange.offsets.flags);
    flag = flags + static_cast<int32_t>(FlagKind::kQuery) * exchange.num_instances + exchange.self;
  }
  const uint64_t value = (*epoch.step - 1) * static_cast<uint64_t>(epoch.per_step) +
                         static_cast<uint64_t>(epoch.index) + 1;
  // One thread makes what the other blocks wrote, seen through the counter, visible before it
  // writes the flags.
  if (lane == 0) fence_system();
  for (int32_t i = 0; i < exchange.num_instances; ++i) {
    const auto address = __shfl_sync(0xffffffffU, reinterpret_cast<unsigned long long>(flag), i);
    if (lane != 0 || address == 0) continue;
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(address), "l"(value) : "memory");
  }
}

__device__ int64_t token_in_cache(const CacheLayout& cache, int64_t slot, int32_t token_values) {
  const auto place = static_cast<uint32_t>(slot);
  const uint32_t block = place / static_cast<uint32_t>(cache.block_size);
  const uint32_t token = place - block * static_cast<uint32_t>(cache.block_size);
  return block * cache.block_stride + static_cast<int64_t>(token) * token_values;
}

// Of a token's exponent in the first head (kE4m3).
__device__ int64_t exponent_in_cache(const CacheLayout& cache, int64_t slot, int32_t num_heads) {
  const auto place = static_cast<uint32_t>(slot);
  const uint32_t block = place / static_cast<uint32_t>(cache.block_size);
  const uint32_t token = place - block * static_cast<uint32_t>(cache.block_size);
  return block * cache.block_stride + num_heads * cache.head_stride + token;
}

// Eight values of a head and, for the whole head, its exponent.
template <CacheType kType>
__device__ void store_cache(uint8_t* cache, int64_t index, const Vector8& x, float largest,
                            int64_t exponent_index) {
  if constexpr (kType == CacheType::kBf16) {
    store_bf16(cache, index, x);
  } else {
    const uint32_t exponent = kv_exponent(largest);
    const float inverse = inverse_power_of_two(exponent);
    uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 pair = {x.v[2 * i] * inverse, x.v[2 * i + 1] * inverse};
      const uint32_t bits = __nv_cvt_float2_to_fp8x2(pair, __NV_SATFINITE, __NV_E4M3);
      words[i / 2] |= bits << (16 * (i % 2));
    }
    *reinterpret_cast<uint2*>(cache + index) = make_uint2(words[0], words[1]);
    if (exponent_index >= 0) cache[exponent_index] = static_cast<uint8_t>(exponent);
  }
}

inline Status check_rotary(const RotaryView& rotary, int32_t head_dim, int32_t multiple) {
  if (rotary.rotary_dim >= 0 && rotary.rotary_dim <= head_dim && rotary.rotary_dim % multiple == 0)
    return ok_status();
  return unsupported("rotary embedding covers a multiple of " + std::to_string(multiple) +
                     " values of a head, not " + std::to_string(rotary.rotary_dim) + " of " +
                     std::to_string(head_dim));
}

inline Status check_exchange(const ExchangeView& exchange, const ExchangeEpoch& epoch,
                             const uint32_t* counter) {
  if (exchange.query_values % kVectorValues != 0) {
    return unsupported("queries must be a multiple of 8 values, not " +
                       std::to_string(exchange.query_values));
  }
  if (exchange.num_instances > 32) return unsupported("exchanges cover up to 32 instances");
  if (exchange.num_instances > 1 && (epoch.step == nullptr || counter == nullptr)) {
    return invalid_argument("queries of several instances need an epoch and a counter");
  }
  return ok_status();
}

}  // namespace
}  // namespace nanocp::cuda
