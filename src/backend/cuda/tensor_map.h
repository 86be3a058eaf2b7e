// Descriptions of tensors in device memory for the copy engine of an SM (sm_90 and newer).
// Plain values, made on the host without touching the device; passed as kernel parameters.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "base/result.h"

namespace nanocp::cuda {

// [matrices, rows, columns] of bf16 or bytes. Boxes are [1, box_rows, 64 or 128 columns]: 128 bytes
// a row, whose 16-byte pieces are permuted by the row number (swizzle of 128 bytes).
struct TensorMapShape {
  const void* base;  // a multiple of 16
  int64_t columns;
  int64_t rows;
  int64_t matrices;       // boxes beyond are zero; may be more than there are if none is asked for
  int64_t row_stride;     // elements, a multiple of 16 bytes
  int64_t matrix_stride;  // likewise
  int32_t box_rows;       // up to 256
  int32_t value_bytes = 2;
};

Status make_tensor_map(const TensorMapShape& shape, CUtensorMap* map);

// bf16 of five dimensions, adjacent values first. Boxes have rows of 64 values, permuted likewise.
struct TensorMapDimensions {
  const void* base;  // a multiple of 16
  int64_t sizes[5];
  int64_t strides[4];  // elements from the second dimension on, multiples of 8
  int32_t box[5];      // up to 256 each; the first is 64
};

Status make_tensor_map(const TensorMapDimensions& dimensions, CUtensorMap* map);

}  // namespace nanocp::cuda
