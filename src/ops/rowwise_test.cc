// Ops that treat rows one by one: norm, rotation, activation.
#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"
#include "ops/activation.h"
#include "ops/norm.h"
#include "ops/rotary.h"

namespace nanocp::ops {
namespace {

using tensor::Matrix;

Matrix random_rows(tensor::MatrixBuffer& buffer, int64_t rows, int64_t cols, Random& random) {
  const Matrix m = buffer.resize(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i)
    m.data[i] = static_cast<float>(random.uniform() * 4 - 2);
  return m;
}

TEST(RmsNorm, DividesByTheRootMeanSquare) {
  Random random(41);
  for (const int64_t dim : {1, 7, 8, 64, 100}) {
    tensor::MatrixBuffer x_buffer, out_buffer;
    const Matrix x = random_rows(x_buffer, 3, dim, random);
    const Matrix out = out_buffer.resize(3, dim);
    const std::vector<float> weight(static_cast<size_t>(dim), 1.5F);
    rms_norm(x, weight, 1e-5F, out);
    for (int64_t r = 0; r < 3; ++r) {
      double mean = 0.0;
      for (int64_t d = 0; d < dim; ++d) {
        mean += static_cast<double>(x.row(r)[d]) * static_cast<double>(x.row(r)[d]) /
                static_cast<double>(dim);
      }
      for (int64_t d = 0; d < dim; ++d) {
        const double want = 1.5 * static_cast<double>(x.row(r)[d]) / std::sqrt(mean + 1e-5);
        EXPECT_NEAR(out.row(r)[d], want, 1e-5);
      }
    }
  }
}

TEST(RmsNorm, TreatsHeadsApart) {
  Random random(42);
  tensor::MatrixBuffer whole_buffer, head_buffer;
  const Matrix x = random_rows(whole_buffer, 2, 24, random);
  const std::vector<float> weight = {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F, 7.0F, 8.0F};
  const Matrix head = head_buffer.resize(2, 8);
  rms_norm(x.columns(8, 8), weight, 1e-6F, head);
  rms_norm_heads(x, 3, weight, 1e-6F);
  for (int64_t r = 0; r < 2; ++r) {
    for (int64_t d = 0; d < 8; ++d) EXPECT_EQ(x.row(r)[8 + d], head.row(r)[d]);
  }
}

double dot(const float* a, const float* b, int64_t count) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// What rotary embedding is for: products of rotated vectors depend on the distance alone.
TEST(Rotary, ProductsDependOnTheDistance) {
  Random random(43);
  for (const bool interleaved : {false, true}) {
    RotarySpec spec = {.rotary_dim = 16, .theta = 10000.0, .interleaved = interleaved};
    RotaryTable table(spec);
    const std::vector<int32_t> positions = {5, 12, 100'005, 100'012};
    table.prepare(positions);
    tensor::MatrixBuffer buffer;
    const Matrix x = random_rows(buffer, 4, 20, random);
    std::copy_n(x.row(0), 20, x.row(2));
    std::copy_n(x.row(1), 20, x.row(3));
    const std::vector<float> tail(x.row(0) + 18, x.row(0) + 20);
    table.apply(x, {.num_heads = 1, .head_stride = 20, .first_col = 2});
    EXPECT_NEAR(dot(x.row(0), x.row(1), 20), dot(x.row(2), x.row(3), 20), 1e-3);
    EXPECT_EQ(x.row(0)[18], tail[0]);  // columns outside stay
    EXPECT_EQ(x.row(0)[19], tail[1]);
  }
}

// The pair of dims with the lowest frequency is interpolated, the one with the highest is not.
TEST(Rotary, YarnInterpolatesSlowPairsOnly) {
  RotarySpec spec = {.rotary_dim = 64, .theta = 10000.0, .scaling = RotaryScaling::kYarn};
  spec.factor = 40.0;
  spec.original_max_position = 4096;
  const auto yarn = rotary_frequencies(spec);
  spec.scaling = RotaryScaling::kNone;
  const auto plain = rotary_frequencies(spec);
  EXPECT_EQ(yarn.front(), plain.front());
  EXPECT_NEAR(yarn.back() * 40.0F, plain.back(), 1e-9F);
  spec.scaling = RotaryScaling::kLinear;
  EXPECT_NEAR(rotary_frequencies(spec)[3] * 40.0F, plain[3], 1e-7F);
}

TEST(GatedActivation, KnowsBothForms) {
  float gate[3] = {1.0F, -2.0F, 9.0F};
  const float up[3] = {0.5F, 3.0F, -8.0F};
  gated_activation(Activation::kSwiglu, {gate, 1, 3, 3}, {up, 1, 3, 3});
  EXPECT_NEAR(gate[0], 0.5F / (1.0F + std::exp(-1.0F)), 1e-6F);
  EXPECT_NEAR(gate[1], -6.0F / (1.0F + std::exp(2.0F)), 1e-6F);
  float clamped[3] = {1.0F, -2.0F, 9.0F};
  gated_activation(Activation::kClampedSwiglu, {clamped, 1, 3, 3}, {up, 1, 3, 3});
  EXPECT_NEAR(clamped[0], 1.5F / (1.0F + std::exp(-1.702F)), 1e-6F);
  // gate 9 counts as 7, up -8 as -7.
  EXPECT_NEAR(clamped[2], -6.0F * 7.0F / (1.0F + std::exp(-1.702F * 7.0F)), 1e-4F);
}

}  // namespace
}  // namespace nanocp::ops
