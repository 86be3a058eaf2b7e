// The bit mixing of base/random.h for kernels: the same values on both sides.
#pragma once

#include <cstdint>

namespace nanocp::cuda::device {

constexpr uint64_t kGoldenRatio = 0x9e3779b97f4a7c15ULL;

__device__ inline uint64_t mix_bits(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace nanocp::cuda::device
