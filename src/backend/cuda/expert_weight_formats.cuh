// How packed expert weights lie in memory, per format, and how a warp takes them up. The unit is a
// pair: 16 rows x 32 columns, two operands of m16n8k16 products, in the order of the 32 lanes.
//
//   bf16   1024 bytes: 16 of each lane for columns 0-15, then for 16-31
//   fp8     528 bytes: 16 of each lane, the bytes of both operands by turns; the float scales of
//           rows 0-7 and 8-15; 8 unused bytes
//   mxfp4   272 bytes: 8 of each lane, one word for each operand; the scale byte of each row
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "backend/cuda/device/bulk_load.cuh"
#include "tensor/weight.h"

namespace nanocp::cuda {
namespace {

using tensor::WeightFormat;

constexpr int kOperandBytes = 512;  // bf16
constexpr int kFp8ScalesAt = 512;
constexpr int kMxfp4ScalesAt = 256;

__host__ __device__ constexpr int32_t pair_bytes(WeightFormat format) {
  switch (format) {
    case WeightFormat::kFp8Block:
      return kFp8ScalesAt + 16;
    case WeightFormat::kMxfp4:
      return kMxfp4ScalesAt + 16;
    default:
      return 2 * kOperandBytes;
  }
}

struct WeightPair {
  uint32_t low[4];   // columns 0-15: rows lane / 4, + 8; the same of the next 8 columns
  uint32_t high[4];  // columns 16-31
  float scales[2];   // of rows lane / 4 and lane / 4 + 8; not for bf16
};

__device__ inline uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

// Two e4m3 values in the upper bytes of the halves of `bits`. Moved to the place of a bf16's
// exponent and fraction they are too small by 2^120; subnormal numbers and the NaN code fit in.
__device__ inline uint32_t fp8_to_bf16x2(uint32_t bits) {
  const uint32_t moved = (bits & 0x80008000U) | ((bits & 0x7f007f00U) >> 4);
  return multiply_bf16x2(moved, 0x7b807b80U);
}

// Two e2m1 values in the upper four bits of the halves of `bits`; likewise, by 2^126.
__device__ inline uint32_t fp4_to_bf16x2(uint32_t bits) {
  const uint32_t moved = (bits & 0x80008000U) | ((bits & 0x70007000U) >> 6);
  return multiply_bf16x2(moved, 0x7e807e80U);
}

__device__ inline float power_of_two(uint32_t e8m0) {
  return __uint_as_float(e8m0 == 0 ? 0x00400000U : e8m0 << 23);
}

template <WeightFormat kFormat>
__device__ inline void load_pair(uint32_t address, int lane, WeightPair& pair) {
  using namespace device;  // NOLINT(google-build-using-namespace)
  if constexpr (kFormat == WeightFormat::kBf16) {
    const uint4 low = load_shared_16(address + static_cast<uint32_t>(lane) * 16);
    const uint4 high = load_shared_16(address + static_cast<uint32_t>(kOperandBytes + lane * 16));
    pair = {{low.x, low.y, low.z, low.w}, {high.x, high.y, high.z, high.w}, {1.0F, 1.0F}};
  } else if constexpr (kFormat == WeightFormat::kFp8Block) {
    const uint4 raw = load_shared_16(address + static_cast<uint32_t>(lane) * 16);
    const uint2 scales = load_shared_8(address + kFp8ScalesAt);
    const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pair.low[i] = fp8_to_bf16x2(words[i] << 8);
      pair.high[i] = fp8_to_bf16x2(words[i]);
    }
    pair.scales[0] = __uint_as_float(scales.x);
    pair.scales[1] = __uint_as_float(scales.y);
  } else {
    const uint2 raw = load_shared_8(address + static_cast<uint32_t>(lane) * 8);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      pair.low[i] = fp4_to_bf16x2(raw.x << (12 - 4 * i));
      pair.high[i] = fp4_to_bf16x2(raw.y << (12 - 4 * i));
    }
    const uint32_t scales = address + static_cast<uint32_t>(kMxfp4ScalesAt + lane / 4);
    pair.scales[0] = power_of_two(load_shared_byte(scales));
    pair.scales[1] = power_of_two(load_shared_byte(scales + 8));
  }
}

}  // namespace
}  // namespace nanocp::cuda
