// Random weights in every format and matrices to multiply them with, for tests of ops and backends.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/random.h"
#include "tensor/matrix.h"
#include "tensor/weight.h"

namespace nanocp::ops {

using tensor::Matrix;
using tensor::WeightFormat;
using tensor::WeightView;

// A random weight matrix in any format, with the memory behind it.
struct RandomWeight {
  std::vector<uint8_t> bytes;
  std::vector<float> scales;
  std::vector<uint8_t> group_scales;
  WeightView view;
};

inline void fill_values(RandomWeight& weight, Random& random) {
  for (uint8_t& byte : weight.bytes) byte = static_cast<uint8_t>(random.below(256));
  const WeightFormat format = weight.view.format;
  const auto count = static_cast<int64_t>(weight.bytes.size());
  if (format == WeightFormat::kF32) {
    for (int64_t i = 0; i < count / 4; ++i) {
      const auto value = static_cast<float>(random.uniform() - 0.5);
      std::memcpy(weight.bytes.data() + 4 * i, &value, 4);
    }
  } else if (format == WeightFormat::kBf16 || format == WeightFormat::kF16) {
    for (int64_t i = 0; i < count / 2; ++i) {  // exponents that keep values near one
      const uint16_t exponent = format == WeightFormat::kBf16 ? 0x3f00 : 0x3400;
      const uint64_t noise = random.below(format == WeightFormat::kBf16 ? 0x80 : 0x400);
      const auto bits = static_cast<uint16_t>(exponent | noise | (random.below(2) << 15));
      std::memcpy(weight.bytes.data() + 2 * i, &bits, 2);
    }
  } else if (format == WeightFormat::kFp8Block) {
    for (uint8_t& byte : weight.bytes) {
      if ((byte & 0x7f) == 0x7f) byte = 1;  // not the NaN code
    }
  }
}

inline RandomWeight make_weight(WeightFormat format, int64_t rows, int64_t cols, Random& random) {
  RandomWeight weight;
  weight.view = {.format = format, .rows = rows, .cols = cols};
  weight.view.stride_bytes = tensor::row_bytes(format, cols);
  weight.bytes.resize(static_cast<size_t>(rows * weight.view.stride_bytes));
  fill_values(weight, random);
  weight.view.data = weight.bytes.data();
  if (format == WeightFormat::kFp8Block) {
    weight.view.block_rows = 128;
    weight.view.block_cols = 128;
    weight.view.scale_stride = (cols + 127) / 128;
    weight.scales.resize(static_cast<size_t>((rows + 127) / 128 * weight.view.scale_stride));
    for (float& scale : weight.scales) scale = static_cast<float>(random.uniform() * 0.01);
    weight.view.scales = weight.scales.data();
  } else if (format == WeightFormat::kMxfp4) {
    weight.view.group_scale_stride = cols / 32;
    weight.group_scales.resize(static_cast<size_t>(rows * cols / 32));
    for (uint8_t& scale : weight.group_scales)
      scale = static_cast<uint8_t>(random.between(118, 128));
    weight.view.group_scales = weight.group_scales.data();
  }
  return weight;
}

// Of the relative error: sums of a few thousand products in float32.
constexpr float kLinearTolerance = 1.6e-5F;

constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBf16,
                                     WeightFormat::kFp8Block, WeightFormat::kMxfp4};

// max |got - want| relative to max |want|.
inline float relative_error(Matrix got, Matrix want) {
  float largest = 1e-6F;
  float difference = 0.0F;
  for (int64_t r = 0; r < want.rows; ++r) {
    for (int64_t c = 0; c < want.cols; ++c) {
      largest = std::max(largest, std::abs(want.row(r)[c]));
      difference = std::max(difference, std::abs(got.row(r)[c] - want.row(r)[c]));
    }
  }
  return difference / largest;
}

inline Matrix random_matrix(tensor::MatrixBuffer& buffer, int64_t rows, int64_t cols,
                            Random& random) {
  const Matrix m = buffer.resize(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.row(r)[c] = static_cast<float>(random.uniform() - 0.5);
  }
  return m;
}

}  // namespace nanocp::ops
