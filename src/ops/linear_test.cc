#include "ops/linear.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>

#include "backend/cpu/simd/simd_kernels.h"
#include "base/random.h"

namespace nanocp::ops {
namespace {

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

void fill_values(RandomWeight& weight, Random& random) {
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

RandomWeight make_weight(WeightFormat format, int64_t rows, int64_t cols, Random& random) {
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
    for (uint8_t& scale : weight.group_scales) scale = static_cast<uint8_t>(random.between(118, 128));
    weight.view.group_scales = weight.group_scales.data();
  }
  return weight;
}

struct Case {
  int64_t num_rows, out, in;
};
constexpr Case kCases[] = {{1, 1, 32},    {1, 7, 64},    {2, 64, 96},  {3, 33, 160}, {5, 130, 256},
                           {16, 65, 128}, {17, 65, 128}, {40, 200, 1120}, {64, 64, 2080}};
constexpr WeightFormat kFormats[] = {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBf16,
                                     WeightFormat::kFp8Block, WeightFormat::kMxfp4};

void expect_close(Matrix got, Matrix want, const std::string& what) {
  float largest = 1e-6F;
  for (int64_t r = 0; r < want.rows; ++r) {
    for (int64_t c = 0; c < want.cols; ++c) largest = std::max(largest, std::abs(want.row(r)[c]));
  }
  for (int64_t r = 0; r < want.rows; ++r) {
    for (int64_t c = 0; c < want.cols; ++c) {
      ASSERT_NEAR(got.row(r)[c], want.row(r)[c], 2e-6F * largest * 8) << what << " " << r << "," << c;
    }
  }
}

Matrix random_matrix(tensor::MatrixBuffer& buffer, int64_t rows, int64_t cols, Random& random) {
  const Matrix m = buffer.resize(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) m.row(r)[c] = static_cast<float>(random.uniform() - 0.5);
  }
  return m;
}

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
        expect_close(got, want, tensor::to_string(format));
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
      expect_close(got, want, tensor::to_string(format));
    }
  }
}

TEST(Linear, AllInstructionSetsDecodeAlike) {
  Random random(13);
  const cpu::SimdVariants variants = cpu::supported_simd_variants();
  for (const WeightFormat format : kFormats) {
    for (const int64_t cols : {32, 96, 160, 1024}) {
      const RandomWeight weight = make_weight(format, 9, cols, random);
      std::vector<float> got(static_cast<size_t>(cols));
      for (int v = 0; v < variants.count; ++v) {
        for (int64_t row = 0; row < 9; ++row) {
          variants.sets[v]->decode_row({&weight.view, row, 0, cols, got.data()});
          for (int64_t c = 0; c < cols; ++c) {
            ASSERT_EQ(got[static_cast<size_t>(c)], weight_element(weight.view, row, c))
                << variants.sets[v]->name << " " << tensor::to_string(format) << " " << c;
          }
        }
      }
    }
  }
}

TEST(Linear, AllInstructionSetsMultiplyAlike) {
  Random random(14);
  const cpu::SimdVariants variants = cpu::supported_simd_variants();
  for (const WeightFormat format : kFormats) {
    const RandomWeight weight = make_weight(format, 37, 352, random);
    tensor::MatrixBuffer x_buffer, got_buffer, want_buffer;
    const Matrix x = random_matrix(x_buffer, 7, 352, random);
    const Matrix got = got_buffer.resize(7, 37);
    const Matrix want = want_buffer.resize(7, 37);
    linear_reference(x, weight.view, {}, want);
    for (int v = 0; v < variants.count; ++v) {
      variants.sets[v]->linear_rows(
          {&weight.view, 0, 37, x.data, x.stride, x.rows, got.data, got.stride});
      expect_close(got, want, variants.sets[v]->name);
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
