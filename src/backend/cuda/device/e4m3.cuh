// e4m3 codes with a power of two for each token and KV head (tensor/kv_format.h), in registers.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

namespace nanocp::cuda::device {

// Bytes 0 and 2, or 1 and 3, of a word of codes as a bf16 pair of the values times 2^-120: the
// exponents move to the place of bf16's, nothing is computed.
__device__ inline uint32_t even_codes(uint32_t codes) {
  return ((codes << 8) & 0x80008000U) | ((codes << 4) & 0x07f007f0U);
}
__device__ inline uint32_t odd_codes(uint32_t codes) {
  return (codes & 0x80008000U) | ((codes >> 4) & 0x07f007f0U);
}

// The same for bytes 0 and 1 of a word, or for bytes 2 and 3 (`high`): each to the lower byte of
// its half, with its sign in all bits above it.
__device__ inline uint32_t adjacent_codes(uint32_t codes, bool high) {
  uint32_t spread;
  asm("prmt.b32 %0, %1, 0, %2;" : "=r"(spread) : "r"(codes), "r"(high ? 0xb3a2 : 0x9180));
  return (spread << 4) & 0x87f087f0U;
}

// 2^(exponent - 127).
__device__ inline float power_of_two(uint32_t exponent) {
  return __uint_as_float(exponent << 23);
}

// As tensor::kv_exponent.
__device__ inline uint32_t kv_exponent(float largest) {
  const uint32_t bits = __float_as_uint(largest);
  const int32_t exponent =
      static_cast<int32_t>(bits >> 23) - 8 + ((bits & 0x7fffffU) > 0x600000U ? 1 : 0);
  return static_cast<uint32_t>(min(max(exponent, 1), 253));
}

// 2^(127 - exponent).
__device__ inline float inverse_power_of_two(uint32_t exponent) {
  return __uint_as_float((254U - exponent) << 23);
}

// Up to this exponent one factor takes even_codes or odd_codes to the values.
constexpr uint32_t kOneFactorExponentMax = 134;

// A pair of the bf16 that times_code_factor takes for a token's exponent.
template <bool kInOne>
__device__ inline uint32_t code_factor(uint32_t exponent) {
  // As bf16 2^(exponent - 7), or 2^(exponent - 67).
  const uint32_t factor = (kInOne ? exponent + 120U : min(exponent, 194U) + 60U) << 7;
  return factor | factor << 16;
}

__device__ inline uint32_t multiply_pairs(uint32_t a, uint32_t b) {
  const __nv_bfloat162 product = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&a),
                                         *reinterpret_cast<const __nv_bfloat162*>(&b));
  return *reinterpret_cast<const uint32_t*>(&product);
}

// A bf16 pair of even_codes or odd_codes times 2^120 and the token's power of two.
template <bool kInOne>
__device__ inline uint32_t times_code_factor(uint32_t pair, uint32_t factor) {
  constexpr uint32_t kPowers60 = 0x5d805d80U;  // 2^60
  return multiply_pairs(kInOne ? pair : multiply_pairs(pair, kPowers60), factor);
}

// A bf16 pair of even_codes or odd_codes times 2^120 and the token's power of two.
__device__ inline uint32_t scale_codes(uint32_t pair, uint32_t exponent) {
  return times_code_factor<false>(pair, code_factor<false>(exponent));
}

}  // namespace nanocp::cuda::device
