#include "ops/linear.h"

#include <bit>
#include <cmath>

#include "ops/cpu_backend.h"

namespace nanocp::ops {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

template <typename T>
T read_at(const WeightView& w, int64_t row, int64_t col) {
  return static_cast<const T*>(w.row(row))[col];
}

float half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f;
  const int mantissa = bits & 0x3ff;
  const float sign = (bits & 0x8000) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -24);
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
  return sign * std::ldexp(static_cast<float>(mantissa + 1024), exponent - 25);
}

// e4m3fn: bias 7, no infinity. The NaN code 0x7f reads as 480, as in the vector code.
float e4m3_value(uint8_t bits) {
  const int exponent = (bits >> 3) & 0xf;
  const int mantissa = bits & 0x7;
  const float sign = (bits & 0x80) != 0 ? -1.0F : 1.0F;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(mantissa), -9);
  return sign * std::ldexp(static_cast<float>(mantissa + 8), exponent - 10);
}

float e2m1_value(uint8_t code) {
  constexpr float kMagnitudes[8] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  const float magnitude = kMagnitudes[code & 7];
  return (code & 8) != 0 ? -magnitude : magnitude;
}

float fp8_element(const WeightView& w, int64_t row, int64_t col) {
  const int64_t block_row = (row + w.scale_row_offset) / w.block_rows;
  const float scale = w.scales[block_row * w.scale_stride + col / w.block_cols];
  return e4m3_value(read_at<uint8_t>(w, row, col)) * scale;
}

float mxfp4_element(const WeightView& w, int64_t row, int64_t col) {
  const uint8_t pair = read_at<uint8_t>(w, row, col / 2);
  const auto code = static_cast<uint8_t>(col % 2 == 0 ? pair & 0xf : pair >> 4);
  const uint8_t scale = w.group_scales[row * w.group_scale_stride + col / tensor::kMxfp4GroupSize];
  return std::ldexp(e2m1_value(code), static_cast<int>(scale) - 127);
}

void check_linear(const tensor::ConstMatrix& x, const WeightView& w, std::span<const float> bias,
                  const tensor::Matrix& out) {
  NANOCP_CHECK_EQ(x.cols, w.cols);
  NANOCP_CHECK_EQ(out.cols, w.rows);
  NANOCP_CHECK_EQ(x.rows, out.rows);
  NANOCP_CHECK(bias.empty() || static_cast<int64_t>(bias.size()) == w.rows);
}

}  // namespace

float weight_element(const WeightView& w, int64_t row, int64_t col) {
  switch (w.format) {
    case WeightFormat::kF32:
      return read_at<float>(w, row, col);
    case WeightFormat::kF16:
      return half_value(read_at<uint16_t>(w, row, col));
    case WeightFormat::kBf16:
      return std::bit_cast<float>(static_cast<uint32_t>(read_at<uint16_t>(w, row, col)) << 16);
    case WeightFormat::kFp8Block:
      return fp8_element(w, row, col);
    case WeightFormat::kMxfp4:
      return mxfp4_element(w, row, col);
  }
  return 0.0F;
}

void linear(const Context& context, tensor::ConstMatrix x, const WeightView& w,
            std::span<const float> bias, tensor::Matrix out) {
  check_linear(x, w, bias, out);
  if (x.rows == 0) return;
  cpu::linear(context, x, w, out);
  if (bias.empty()) return;
  for (int64_t m = 0; m < out.rows; ++m) {
    float* row = out.row(m);
    for (size_t n = 0; n < bias.size(); ++n) row[n] += bias[n];
  }
}

void linear_reference(tensor::ConstMatrix x, const WeightView& w, std::span<const float> bias,
                      tensor::Matrix out) {
  check_linear(x, w, bias, out);
  for (int64_t m = 0; m < x.rows; ++m) {
    for (int64_t n = 0; n < w.rows; ++n) {
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(n)]);
      for (int64_t k = 0; k < w.cols; ++k) {
        sum += static_cast<double>(x.row(m)[k]) * static_cast<double>(weight_element(w, n, k));
      }
      out.row(m)[n] = static_cast<float>(sum);
    }
  }
}

void gather_rows(const WeightView& w, std::span<const TokenId> ids, tensor::Matrix out) {
  NANOCP_CHECK_EQ(out.rows, static_cast<int64_t>(ids.size()));
  NANOCP_CHECK_EQ(out.cols, w.cols);
  for (size_t i = 0; i < ids.size(); ++i) {
    NANOCP_CHECK(ids[i] >= 0 && ids[i] < w.rows);
    cpu::decode_row(w, ids[i], out.row_span(static_cast<int64_t>(i)));
  }
}

}  // namespace nanocp::ops
