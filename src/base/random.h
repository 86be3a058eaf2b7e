// Seeded randomness, the same on every machine and standard library. SplitMix64 (Steele, Lea and
// Flood, 2014). One thread per generator; counter_random is pure.
#pragma once

#include <cstdint>

namespace nanocp {

inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Pure function of (seed, counter): sampling stays reproducible whatever runs beside a request.
inline uint64_t counter_random(uint64_t seed, uint64_t counter) {
  return mix_bits(mix_bits(seed + 0x9e3779b97f4a7c15ULL) + (counter + 1) * 0x9e3779b97f4a7c15ULL);
}

// Maps 64 random bits to [0, 1) with 53 bits of precision.
inline double to_unit_interval(uint64_t bits) {
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

// The upper 64 bits of a 128-bit product, in standard C++.
inline uint64_t multiply_high(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xffffffffU;
  const uint64_t a_high = a >> 32;
  const uint64_t b_low = b & 0xffffffffU;
  const uint64_t b_high = b >> 32;
  const uint64_t middle = a_high * b_low + ((a_low * b_low) >> 32);
  const uint64_t other = a_low * b_high + (middle & 0xffffffffU);
  return a_high * b_high + (middle >> 32) + (other >> 32);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() { return mix_bits(state_ += 0x9e3779b97f4a7c15ULL); }
  // Uniform in [0, bound). Requires: bound > 0. The bias is below bound / 2^64.
  uint64_t below(uint64_t bound) { return multiply_high(next(), bound); }
  // Uniform in [low, high].
  int64_t between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(below(static_cast<uint64_t>(high - low) + 1));
  }
  double uniform() { return to_unit_interval(next()); }

 private:
  uint64_t state_;
};

}  // namespace nanocp
