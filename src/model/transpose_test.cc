#include "model/transpose.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "ops/linear.h"

namespace nanocp::model {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

struct Shape {
  int64_t rows;
  int64_t cols;
};

// Bytes that differ from element to element; fp8 gets a scale per 16 x 16 block.
class Source {
 public:
  Source(WeightFormat format, Shape shape) {
    view_.format = format;
    view_.rows = shape.rows;
    view_.cols = shape.cols;
    view_.stride_bytes = tensor::row_bytes(format, shape.cols);
    bytes_.resize(static_cast<size_t>(shape.rows * view_.stride_bytes));
    for (size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i] = static_cast<uint8_t>((i * 37 + i / 61) % 120);  // no infinity, no NaN
    }
    view_.data = bytes_.data();
    if (format != WeightFormat::kFp8Block) return;
    view_.block_rows = 16;
    view_.block_cols = 16;
    view_.scale_stride = (shape.cols + 15) / 16;
    scales_.resize(static_cast<size_t>((shape.rows + 15) / 16 * view_.scale_stride));
    for (size_t i = 0; i < scales_.size(); ++i) scales_[i] = 0.5F + static_cast<float>(i);
    view_.scales = scales_.data();
  }

  const WeightView& view() const { return view_; }

 private:
  std::vector<uint8_t> bytes_;
  std::vector<float> scales_;
  WeightView view_;
};

TEST(Transpose, EveryFormatAndShapesOffTheTile) {
  for (const WeightFormat format :
       {WeightFormat::kF32, WeightFormat::kF16, WeightFormat::kBf16, WeightFormat::kFp8Block}) {
    for (const Shape shape : {Shape{1, 1}, Shape{32, 64}, Shape{33, 70}, Shape{5, 97}}) {
      const Source source(format, shape);
      std::vector<uint8_t> target(static_cast<size_t>(transposed_bytes(source.view())));
      transpose_weight(source.view(), target.data());
      const WeightView turned = transposed_view(source.view(), target.data());
      ASSERT_EQ(turned.rows, shape.cols);
      ASSERT_EQ(turned.cols, shape.rows);
      ASSERT_EQ(static_cast<int64_t>(target.size()), turned.rows * turned.stride_bytes);
      for (int64_t row = 0; row < shape.rows; ++row) {
        for (int64_t col = 0; col < shape.cols; ++col) {
          ASSERT_EQ(ops::weight_element(turned, col, row),
                    ops::weight_element(source.view(), row, col))
              << tensor::to_string(format) << " at " << row << ", " << col;
        }
      }
    }
  }
}

TEST(Transpose, RowRangesOfFp8KeepTheirScales) {
  const Source source(WeightFormat::kFp8Block, {48, 32});
  const WeightView part = source.view().row_range(20, 20);  // begins and ends inside blocks
  std::vector<uint8_t> target(static_cast<size_t>(transposed_bytes(part)));
  transpose_weight(part, target.data());
  const WeightView turned = transposed_view(part, target.data());
  for (int64_t row = 0; row < 20; ++row) {
    EXPECT_EQ(ops::weight_element(turned, 31, row),
              ops::weight_element(source.view(), row + 20, 31));
  }
}

}  // namespace
}  // namespace nanocp::model
