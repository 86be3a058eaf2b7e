// Descriptions of matrices in device memory for the copy engine of an SM (device/tensor_load.cuh).
// A map is plain data, by value in kernel parameters, and owns nothing.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "base/result.h"

namespace nanocp::cuda {

struct Bf16Matrix {
  const void* data = nullptr;  // device, a multiple of 16 bytes
  int64_t rows = 0;
  int64_t cols = 0;  // a multiple of 8; rows lie behind one another without gaps
};

// Boxes of box_rows (up to 256) x 64 values, written to shared memory as rows of 128 bytes with the
// 128-byte swizzle. Fails where the driver cannot.
Status make_swizzled_map(const Bf16Matrix& matrix, int32_t box_rows, CUtensorMap* map);

}  // namespace nanocp::cuda
