// How a KV cache stores its values, the same on the CPU and on GPUs. Pure functions, any thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

namespace nanocp::tensor {

enum class KvFormat : int32_t {
  kF32,
  kBf16,
  // e4m3 codes times one power of two for each token and KV head. Of a block there are the codes of
  // all heads, then their exponents, block_size for each head (e8m0: 2^(byte - 127)). A power of
  // two loses nothing that the format does not lose, and what is stored depends on the token alone.
  kFp8,
};

inline const char* to_string(KvFormat format) {
  switch (format) {
    case KvFormat::kF32:
      return "f32";
    case KvFormat::kBf16:
      return "bf16";
    case KvFormat::kFp8:
      return "fp8";
  }
  return "unknown";
}

constexpr int64_t kv_value_bytes(KvFormat format) {
  return format == KvFormat::kF32 ? 4 : format == KvFormat::kBf16 ? 2 : 1;
}

// Of one token and KV head with `dim` values, its exponent included.
constexpr int64_t kv_token_bytes(KvFormat format, int64_t dim) {
  return dim * kv_value_bytes(format) + (format == KvFormat::kFp8 ? 1 : 0);
}

// The same in values of the format (bytes for kFp8): distances in a cache count those.
constexpr int64_t kv_token_values(KvFormat format, int64_t dim) {
  return kv_token_bytes(format, dim) / kv_value_bytes(format);
}

constexpr float kE4m3Max = 448.0F;

// The smallest exponent byte that brings values up to `largest` (>= 0) within the range of e4m3:
// 448 is 1.75 * 2^8. From 1 to 253, so that its power of two and the inverse are normal numbers.
inline uint8_t kv_exponent(float largest) {
  const auto bits = std::bit_cast<uint32_t>(largest);
  const auto exponent = static_cast<int32_t>(bits >> 23);
  const bool above = (bits & 0x7fffffU) > 0x600000U;
  return static_cast<uint8_t>(std::clamp(exponent - 8 + (above ? 1 : 0), 1, 253));
}

// 2^(exponent - 127). Requires: exponent >= 1.
inline float kv_scale(uint8_t exponent) {
  return std::bit_cast<float>(static_cast<uint32_t>(exponent) << 23);
}

// Nearest code, ties to even; beyond the range the largest one, NaN likewise.
inline uint8_t encode_e4m3(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint32_t>(bits >> 31) << 7;
  const float magnitude = std::abs(value);
  if (!(magnitude < kE4m3Max)) return static_cast<uint8_t>(sign | 0x7eU);
  if (magnitude < 0x1p-6F) {  // codes below 8 count 2^-9; rounding up to 8 gives 2^-6
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(std::nearbyint(magnitude * 512.0F)));
  }
  constexpr uint32_t kBiasDifference = (127U - 7U) << 3;
  const uint32_t all = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = (all + 0x7ffffU + ((all >> 20) & 1U)) >> 20;
  return static_cast<uint8_t>(sign | std::min(rounded - kBiasDifference, 0x7eU));
}

// The code 0x7f, NaN elsewhere, reads as 480 (never written).
inline float decode_e4m3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80U) << 24;
  const uint32_t magnitude = code & 0x7fU;
  const float value = magnitude < 8 ? static_cast<float>(magnitude) / 512.0F
                                    : std::bit_cast<float>((magnitude << 20) + (120U << 23));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

inline uint16_t encode_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}
inline float decode_bf16(uint16_t code) {
  return std::bit_cast<float>(static_cast<uint32_t>(code) << 16);
}

}  // namespace nanocp::tensor
