// Eight adjacent values of a row in the registers of one thread, moved by 16-byte accesses, and the
// sums over warps and blocks that norms need. Addresses are multiples of 16 bytes.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace nanocp::cuda::device {

constexpr int kVectorValues = 8;

struct Vector8 {
  float v[kVectorValues];
};

__device__ inline Vector8 load_bf16(const void* values, int64_t index) {
  const auto* at = static_cast<const __nv_bfloat16*>(values) + index;
  const uint4 bits = *reinterpret_cast<const uint4*>(at);
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
  Vector8 out;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out.v[2 * i] = __uint_as_float(words[i] << 16);
    out.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000U);
  }
  return out;
}

__device__ inline Vector8 load_float(const float* values, int64_t index) {
  const auto* at = reinterpret_cast<const float4*>(values + index);
  const float4 a = at[0];
  const float4 b = at[1];
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// Of memory that nothing writes while kernels run: may be read ahead of the kernel before.
__device__ inline Vector8 load_constant(const float* values, int64_t index) {
  const auto* at = reinterpret_cast<const float4*>(values + index);
  const float4 a = __ldg(at);
  const float4 b = __ldg(at + 1);
  return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ inline uint4 to_bf16(const Vector8& x) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x.v[2 * i], x.v[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

__device__ inline void store_bf16(void* values, int64_t index, const Vector8& x) {
  *reinterpret_cast<uint4*>(static_cast<__nv_bfloat16*>(values) + index) = to_bf16(x);
}

__device__ inline void store_float(float* values, int64_t index, const Vector8& x) {
  auto* at = reinterpret_cast<float4*>(values + index);
  at[0] = make_float4(x.v[0], x.v[1], x.v[2], x.v[3]);
  at[1] = make_float4(x.v[4], x.v[5], x.v[6], x.v[7]);
}

__device__ inline void add(Vector8& x, const Vector8& y) {
#pragma unroll
  for (int i = 0; i < kVectorValues; ++i) x.v[i] += y.v[i];
}

__device__ inline float sum_of_squares(const Vector8& x) {
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < kVectorValues; ++i) sum += x.v[i] * x.v[i];
  return sum;
}

__device__ inline void scale(Vector8& x, float factor, const Vector8& weight) {
#pragma unroll
  for (int i = 0; i < kVectorValues; ++i) x.v[i] = x.v[i] * factor * weight.v[i];
}

// Over each aligned group of kLanes lanes; all lanes of the warp call it.
template <int kLanes>
__device__ inline float group_sum(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(0xffffffffU, value, distance);
  }
  return value;
}

// Over the block, the same bits in every thread. All threads call it, once per use of `shared`;
// blockDim.x is a multiple of 32.
__device__ inline float block_sum(float value, float (&shared)[32]) {
  const unsigned lane = threadIdx.x % 32;
  value = group_sum<32>(value);
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return group_sum<32>(lane < blockDim.x / 32 ? shared[lane] : 0.0F);
}

// The same for the largest of values that are not negative.
__device__ inline float block_max(float value, float (&shared)[32]) {
  const unsigned lane = threadIdx.x % 32;
  const auto warp_max = [](float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      x = fmaxf(x, __shfl_xor_sync(0xffffffffU, x, distance));
    }
    return x;
  };
  value = warp_max(value);
  if (lane == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  return warp_max(lane < blockDim.x / 32 ? shared[lane] : 0.0F);
}

}  // namespace nanocp::cuda::device
