// How random bits become dummy weights, the same on CPU and GPU: random 64-bit words are masked
// with `keep`, then `set` is added. With a fixed exponent and a random sign and mantissa, values
// are spread over +-[1, 2) x 2^exponent without arithmetic per value. Pure functions, any thread.
#pragma once

#include <cmath>
#include <cstdint>

#include "model/stored_type.h"

namespace nanocp::model {

struct BitPattern {
  uint64_t keep = 0;
  uint64_t set = 0;
};

inline BitPattern repeat_bits(uint64_t keep, uint64_t set, int bits) {
  BitPattern pattern;
  for (int shift = 0; shift < 64; shift += bits) {
    pattern.keep |= keep << shift;
    pattern.set |= set << shift;
  }
  return pattern;
}

// Types without an exponent of their own (fp8 and mxfp4, which have scales) take no `exponent`.
inline BitPattern signed_values(StoredType type, int exponent) {
  const auto biased = [exponent](int bias) { return static_cast<uint64_t>(bias + exponent); };
  switch (type) {
    case StoredType::kF32:
      return repeat_bits(0x807fffff, biased(127) << 23, 32);
    case StoredType::kBf16:
      return repeat_bits(0x807f, biased(127) << 7, 16);
    case StoredType::kF16:
      return repeat_bits(0x83ff, biased(15) << 10, 16);
    case StoredType::kF8E4m3:
      return repeat_bits(0x87, uint64_t{7} << 3, 8);
    default:
      return repeat_bits(0xff, 0, 8);
  }
}

constexpr double kRmsOneToTwo = 1.53;  // of a uniform value in [1, 2)
constexpr double kRmsE2m1 = 2.93;      // of the sixteen e2m1 values

// Of values of that root mean square, so that products with `fan_in` inputs stay near 1.
inline int exponent_for(double root_mean_square, int64_t fan_in) {
  const double wanted = 1.0 / std::sqrt(static_cast<double>(fan_in));
  return static_cast<int>(std::lround(std::log2(wanted / root_mean_square)));
}

// Of float32 scales of fp8 values.
inline BitPattern fp8_scales(int64_t fan_in) {
  const int exponent = exponent_for(kRmsOneToTwo * kRmsOneToTwo, fan_in);
  return repeat_bits(0x007fffff, static_cast<uint64_t>(127 + exponent) << 23, 32);
}

// Of e8m0 scales of mxfp4 values.
inline BitPattern mxfp4_scales(int64_t fan_in) {
  return repeat_bits(0, static_cast<uint64_t>(127 + exponent_for(kRmsE2m1, fan_in)), 8);
}

}  // namespace nanocp::model
