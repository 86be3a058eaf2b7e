// One vector of floats in the widest registers of the instruction set being compiled for, and
// loads that decode weight formats into it. Included only by simd_kernels.cc.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace nanocp::cpu {
namespace {  // one copy per instruction set

// 2^8 makes up for reading an e4m3 value as an f16 one (exponent bias 15 against 7).
constexpr float kFp8Rescale = 256.0F;

// e2m1, by code.
[[maybe_unused]] alignas(64) constexpr float kMxfp4Values[16] = {
    0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
    -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

[[maybe_unused]] inline float half_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000U) << 16;
  const uint32_t magnitude = bits & 0x7fffU;
  if (magnitude >= 0x7c00U) {
    return std::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13));
  }
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1.0p112F;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
}

// 2^(e8m0 - 127); the code 0 stands for 2^-127, which float32 holds as a denormal.
inline uint32_t power_of_two_bits(uint8_t e8m0) {
  const uint32_t bits = static_cast<uint32_t>(e8m0) << 23;
  return bits > 0x00400000U ? bits : 0x00400000U;
}
inline float power_of_two_of(uint8_t e8m0) {
  return std::bit_cast<float>(power_of_two_bits(e8m0));
}

#if defined(__AVX512F__)

using Vec = __m512;
constexpr int kWidth = 16;
inline Vec zero() {
  return _mm512_setzero_ps();
}
inline Vec set1(float x) {
  return _mm512_set1_ps(x);
}
inline Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
inline void store(float* p, Vec a) {
  _mm512_storeu_ps(p, a);
}
inline Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
inline Vec max(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
inline float sum(Vec a) {
  return _mm512_reduce_add_ps(a);
}
inline float largest(Vec a) {
  return _mm512_reduce_max_ps(a);
}
// Adds the two halves of neighbouring lanes, so that four levels leave one sum per input.
inline Vec add_pairs(Vec a, Vec b) {
  const __m512d low = _mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  const __m512d high = _mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b));
  return _mm512_add_ps(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
}
inline Vec add_singles(Vec a, Vec b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, _MM_SHUFFLE(2, 0, 2, 0)),
                       _mm512_shuffle_ps(a, b, _MM_SHUFFLE(3, 1, 3, 1)));
}
// In each 128-bit lane: the lane's sums of a, b, c and d.
inline Vec sum_lanes(Vec a, Vec b, Vec c, Vec d) {
  return add_singles(add_pairs(a, b), add_pairs(c, d));
}
// The sums of 16 vectors: 45 instructions instead of 16 reductions. The order within sum_lanes is
// a, b, c, d -> 0, 1, 2, 3 after add_pairs gave a0 a1 b0 b1 and c0 c1 d0 d1.
inline Vec sum16(const Vec (&v)[4][4]) {
  Vec quads[4];
  for (int i = 0; i < 4; ++i) quads[i] = sum_lanes(v[i][0], v[i][1], v[i][2], v[i][3]);
  const Vec ab = _mm512_add_ps(_mm512_shuffle_f32x4(quads[0], quads[1], 0x88),
                               _mm512_shuffle_f32x4(quads[0], quads[1], 0xdd));
  const Vec cd = _mm512_add_ps(_mm512_shuffle_f32x4(quads[2], quads[3], 0x88),
                               _mm512_shuffle_f32x4(quads[2], quads[3], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}
inline Vec load_bf16(const uint8_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
inline Vec load_f16(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// Sign-extended and shifted left by 7, an e4m3 code is an f16 one but for a copy of the sign in
// bit 14.
inline Vec load_fp8(const uint8_t* p) {
  const __m256i raw = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(raw, 7), _mm256_set1_epi16(-0x4001));
  return _mm512_cvtph_ps(half);
}
[[maybe_unused]] inline Vec load_mxfp4(const uint8_t* p) {
  const __m128i raw = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i low = _mm_and_si128(raw, _mm_set1_epi16(0x0f));
  const __m128i high = _mm_slli_epi16(_mm_srli_epi16(raw, 4), 8);
  const __m512i codes = _mm512_cvtepu8_epi32(_mm_or_si128(low, high));
  return _mm512_permutexvar_ps(codes, _mm512_load_ps(kMxfp4Values));
}
// All 32 values of a group in their order.
inline void load_mxfp4_group(const uint8_t* p, Vec (&out)[2]) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i low = _mm_and_si128(raw, _mm_set1_epi8(0x0f));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(raw, 4), _mm_set1_epi8(0x0f));
  const __m512 values = _mm512_load_ps(kMxfp4Values);
  out[0] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpacklo_epi8(low, high)), values);
  out[1] = _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_unpackhi_epi8(low, high)), values);
}
inline Vec round_to_int(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline Vec times_power_of_two(Vec a, Vec n) {
  return _mm512_scalef_ps(a, n);
}

#elif defined(__AVX2__)

using Vec = __m256;
constexpr int kWidth = 8;
inline Vec zero() {
  return _mm256_setzero_ps();
}
inline Vec set1(float x) {
  return _mm256_set1_ps(x);
}
inline Vec load(const float* p) {
  return _mm256_loadu_ps(p);
}
inline void store(float* p, Vec a) {
  _mm256_storeu_ps(p, a);
}
inline Vec add(Vec a, Vec b) {
  return _mm256_add_ps(a, b);
}
inline Vec mul(Vec a, Vec b) {
  return _mm256_mul_ps(a, b);
}
inline Vec max(Vec a, Vec b) {
  return _mm256_max_ps(a, b);
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return _mm256_fmadd_ps(a, b, c);
}
inline float sum(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float largest(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline Vec load_bf16(const uint8_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
inline Vec load_f16(const uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Vec load_fp8(const uint8_t* p) {
  const __m128i raw = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_cvtph_ps(_mm_and_si128(_mm_slli_epi16(raw, 7), _mm_set1_epi16(-0x4001)));
}
[[maybe_unused]] inline Vec load_mxfp4(const uint8_t* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof(word));
  const __m128i raw = _mm_cvtepu8_epi16(_mm_cvtsi32_si128(static_cast<int>(word)));
  const __m128i low = _mm_and_si128(raw, _mm_set1_epi16(0x0f));
  const __m128i high = _mm_slli_epi16(_mm_srli_epi16(raw, 4), 8);
  const __m256i codes = _mm256_cvtepu8_epi32(_mm_or_si128(low, high));
  const __m256 magnitudes = _mm256_permutevar8x32_ps(_mm256_load_ps(kMxfp4Values), codes);
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(codes, 3), 31);
  return _mm256_or_ps(magnitudes, _mm256_castsi256_ps(sign));
}
inline Vec round_to_int(Vec a) {
  return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// Requires: n in [-126, 127].
inline Vec times_power_of_two(Vec a, Vec n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}

#else

constexpr int kWidth = 2;  // an mxfp4 byte holds two values
struct Vec {
  float v[kWidth];
};
inline Vec zero() {
  return {{0.0F, 0.0F}};
}
inline Vec set1(float x) {
  return {{x, x}};
}
inline Vec load(const float* p) {
  return {{p[0], p[1]}};
}
inline void store(float* p, Vec a) {
  p[0] = a.v[0];
  p[1] = a.v[1];
}
inline Vec add(Vec a, Vec b) {
  return {{a.v[0] + b.v[0], a.v[1] + b.v[1]}};
}
inline Vec mul(Vec a, Vec b) {
  return {{a.v[0] * b.v[0], a.v[1] * b.v[1]}};
}
inline Vec max(Vec a, Vec b) {
  return {{a.v[0] > b.v[0] ? a.v[0] : b.v[0], a.v[1] > b.v[1] ? a.v[1] : b.v[1]}};
}
inline Vec fma(Vec a, Vec b, Vec c) {
  return add(mul(a, b), c);
}
inline float sum(Vec a) {
  return a.v[0] + a.v[1];
}
inline float largest(Vec a) {
  return a.v[0] > a.v[1] ? a.v[0] : a.v[1];
}
inline uint16_t read_u16(const uint8_t* p) {
  uint16_t bits;
  std::memcpy(&bits, p, sizeof(bits));
  return bits;
}
inline float bf16_to_float(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}
inline Vec load_bf16(const uint8_t* p) {
  return {{bf16_to_float(read_u16(p)), bf16_to_float(read_u16(p + 2))}};
}
inline Vec load_f16(const uint8_t* p) {
  return {{half_to_float(read_u16(p)), half_to_float(read_u16(p + 2))}};
}
inline float fp8_as_half(uint8_t code) {
  return half_to_float(static_cast<uint16_t>(((code & 0x80U) << 8) | ((code & 0x7fU) << 7)));
}
inline Vec load_fp8(const uint8_t* p) {
  return {{fp8_as_half(p[0]), fp8_as_half(p[1])}};
}
[[maybe_unused]] inline Vec load_mxfp4(const uint8_t* p) {
  return {{kMxfp4Values[*p & 0x0fU], kMxfp4Values[*p >> 4]}};
}
inline Vec round_to_int(Vec a) {
  return {{std::nearbyint(a.v[0]), std::nearbyint(a.v[1])}};
}
inline Vec times_power_of_two(Vec a, Vec n) {
  return {
      {std::ldexp(a.v[0], static_cast<int>(n.v[0])), std::ldexp(a.v[1], static_cast<int>(n.v[1]))}};
}

#endif

// The first `count` < kWidth values, the others zero.
inline Vec load_tail(const float* p, int64_t count) {
  alignas(64) float values[kWidth] = {};
  std::memcpy(values, p, static_cast<size_t>(count) * sizeof(float));
  return load(values);
}

inline Vec set1_power_of_two(uint8_t e8m0) {
  return set1(power_of_two_of(e8m0));
}

#if !defined(__AVX512F__)
// All 32 values of a group in their order.
inline void load_mxfp4_group(const uint8_t* p, Vec (&out)[32 / kWidth]) {
  for (int i = 0; i < 32 / kWidth; ++i) out[i] = load_mxfp4(p + i * kWidth / 2);
}
#endif

// e^x for x <= 0, relative error below 2e-7 (Cephes expf: range reduction by ln 2 and a polynomial
// of degree 5); below -87 the result is about 1e-38.
inline Vec exp(Vec x) {
  x = max(x, set1(-87.0F));
  const Vec n = round_to_int(mul(x, set1(1.44269504F)));
  Vec r = fma(n, set1(-0.693359375F), x);
  r = fma(n, set1(2.12194440e-4F), r);
  Vec p = set1(1.9875691500e-4F);
  p = fma(p, r, set1(1.3981999507e-3F));
  p = fma(p, r, set1(8.3334519073e-3F));
  p = fma(p, r, set1(4.1665795894e-2F));
  p = fma(p, r, set1(1.6666665459e-1F));
  p = fma(p, r, set1(5.0000001201e-1F));
  p = fma(mul(p, r), r, add(r, set1(1.0F)));
  return times_power_of_two(p, n);
}

}  // namespace
}  // namespace nanocp::cpu
