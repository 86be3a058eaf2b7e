#include "ops/linear.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "ops/linear_test_data.h"

namespace nanocp::ops {
namespace {

using tensor::Matrix;
using tensor::WeightFormat;
using tensor::WeightView;

struct Case {
  int64_t num_rows, out, in;
};
constexpr Case kCases[] = {{1, 1, 32},    {1, 7, 64},      {2, 64, 96},
                           {3, 33, 160},  {5, 130, 256},   {16, 65, 128},
                           {17, 65, 128}, {40, 200, 1120}, {64, 64, 2080}};
TEST(Linear, EqualsReferenceInEveryFormat) {
  Random random(11);
  for (int num_threads : {1, 3}) {
    ThreadPool pool(num_threads);
    const Context context{&pool};
    for (const WeightFormat format : kFormats) {
      for (const Case& c : kCases) {
        const RandomWeight weight = make_weight(format, c.out, c.in, random);
        tensor::MatrixBuffer x_buffer, got_buffer, want_buffer;
        const Matrix x = random_matrix(x_buffer, c.num_rows, c.in, random);
        const Matrix got = got_buffer.resize(c.num_rows, c.out);
        const Matrix want = want_buffer.resize(c.num_rows, c.out);
        std::vector<float> bias(static_cast<size_t>(c.out), 0.25F);
        linear(context, x, weight.view, bias, got);
        linear_reference(x, weight.view, bias, want);
        EXPECT_LE(relative_error(got, want), kLinearTolerance) << tensor::to_string(format);
      }
    }
  }
}

TEST(Linear, ReadsStridedRowsAndScaleOffsets) {
  Random random(12);
  ThreadPool pool(1);
  const Context context{&pool};
  for (const WeightFormat format : kFormats) {
    const RandomWeight weight = make_weight(format, 300, 128, random);
    WeightView every_second = weight.view;
    every_second.rows /= 2;
    every_second.stride_bytes *= 2;
    every_second.group_scale_stride *= 2;
    // Interleaved rows of block-scaled weights would need scales of their own.
    const bool can_interleave = format != WeightFormat::kFp8Block;
    for (const WeightView& view :
         {weight.view.row_range(100, 150), can_interleave ? every_second : weight.view}) {
      tensor::MatrixBuffer x_buffer, got_buffer, want_buffer;
      const Matrix x = random_matrix(x_buffer, 2, 128, random);
      const Matrix got = got_buffer.resize(2, view.rows);
      const Matrix want = want_buffer.resize(2, view.rows);
      linear(context, x, view, {}, got);
      linear_reference(x, view, {}, want);
      EXPECT_LE(relative_error(got, want), kLinearTolerance) << tensor::to_string(format);
    }
  }
}

TEST(Linear, KnowsTheValuesOfSmallFormats) {
  const uint8_t fp8[4] = {0x38, 0xb8, 0x01, 0x7e};  // 1, -1, 2^-9, 448
  const float scale = 2.0F;
  WeightView w = {.format = WeightFormat::kFp8Block, .data = fp8, .rows = 1, .cols = 4};
  w.stride_bytes = 4;
  w.scales = &scale;
  w.scale_stride = 1;
  w.block_rows = w.block_cols = 128;
  const float want[4] = {2.0F, -2.0F, 0x1p-8F, 896.0F};
  for (int c = 0; c < 4; ++c) EXPECT_EQ(weight_element(w, 0, c), want[c]);
}

TEST(GatherRows, DecodesTheNamedRows) {
  Random random(15);
  const RandomWeight weight = make_weight(WeightFormat::kBf16, 20, 48, random);
  const std::vector<TokenId> ids = {19, 0, 7, 7};
  tensor::MatrixBuffer buffer;
  const Matrix out = buffer.resize(4, 48);
  gather_rows(weight.view, ids, out);
  for (size_t i = 0; i < ids.size(); ++i) {
    for (int64_t c = 0; c < 48; ++c) {
      EXPECT_EQ(out.row(static_cast<int64_t>(i))[c], weight_element(weight.view, ids[i], c));
    }
  }
}

}  // namespace
}  // namespace nanocp::ops
