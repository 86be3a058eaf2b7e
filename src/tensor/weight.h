// A non-owning view of a weight matrix in the format it is stored in. Ops multiply it as it is:
// nothing is expanded in memory.
#pragma once

#include <cstdint>

#include "base/check.h"

namespace nanocp::tensor {

enum class WeightFormat {
  kF32,
  kF16,
  kBf16,
  kFp8Block,  // e4m3 x one float32 scale per block; the NaN code 0x7f reads as 480
  kMxfp4,     // e2m1 pairs (low nibble first), one power-of-two e8m0 scale per 32 columns
};

inline const char* to_string(WeightFormat format) {
  switch (format) {
    case WeightFormat::kF32:
      return "f32";
    case WeightFormat::kF16:
      return "f16";
    case WeightFormat::kBf16:
      return "bf16";
    case WeightFormat::kFp8Block:
      return "fp8";
    case WeightFormat::kMxfp4:
      return "mxfp4";
  }
  return "unknown";
}

constexpr int64_t kMxfp4GroupSize = 32;

// y = W x with W [rows = out features, cols = in features].
struct WeightView {
  WeightFormat format = WeightFormat::kF32;
  const void* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride_bytes = 0;  // from one row to the next

  // kFp8Block: scale of element (r, c) is
  // scales[((r + scale_row_offset) / block_rows) * scale_stride + c / block_cols].
  const float* scales = nullptr;
  int64_t scale_stride = 0;
  int64_t block_rows = 1;
  int64_t block_cols = 1;
  int64_t scale_row_offset = 0;

  // kMxfp4: scale of element (r, c) is 2^(group_scales[r * group_scale_stride + c / 32] - 127).
  const uint8_t* group_scales = nullptr;
  int64_t group_scale_stride = 0;

  bool empty() const { return data == nullptr; }
  const void* row(int64_t index) const {
    NANOCP_DCHECK(index >= 0 && index < rows);
    return static_cast<const uint8_t*>(data) + index * stride_bytes;
  }
  // Rows [begin, begin + count), with their scales.
  WeightView row_range(int64_t begin, int64_t count) const {
    NANOCP_CHECK(begin >= 0 && count >= 0 && begin + count <= rows);
    WeightView part = *this;
    part.data = static_cast<const uint8_t*>(data) + begin * stride_bytes;
    part.rows = count;
    part.scale_row_offset = scale_row_offset + begin;
    if (group_scales != nullptr) part.group_scales = group_scales + begin * group_scale_stride;
    return part;
  }
};

// Bytes of one row of `cols` values, without scales.
inline int64_t row_bytes(WeightFormat format, int64_t cols) {
  switch (format) {
    case WeightFormat::kF32:
      return cols * 4;
    case WeightFormat::kF16:
    case WeightFormat::kBf16:
      return cols * 2;
    case WeightFormat::kFp8Block:
      return cols;
    case WeightFormat::kMxfp4:
      return cols / 2;
  }
  return 0;
}

}  // namespace nanocp::tensor
