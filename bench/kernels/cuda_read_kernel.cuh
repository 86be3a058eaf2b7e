// Reads memory and does nothing with it: the limit that other kernels are measured against.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nanocp::bench {

static __global__ void read_kernel(const uint4* data, size_t count, uint32_t* sink) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += 4 * stride) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) {
        const uint4 value = data[i + j * stride];
        sum ^= value.x ^ value.y ^ value.z ^ value.w;
      }
    }
  }
  if (sum == 0x12345678U) *sink = sum;
}

}  // namespace nanocp::bench
