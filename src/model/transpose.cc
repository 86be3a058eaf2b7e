#include "model/transpose.h"

#include <algorithm>
#include <cstring>

#include "ops/linear.h"

namespace nanocp::model {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

constexpr int64_t kTile = 32;  // a tile of source and target stays in the first-level cache

template <typename T, typename Element>
void transpose_tiles(const WeightView& source, uint8_t* target, const Element& element) {
  for (int64_t row0 = 0; row0 < source.rows; row0 += kTile) {
    for (int64_t col0 = 0; col0 < source.cols; col0 += kTile) {
      const int64_t row_end = std::min(row0 + kTile, source.rows);
      const int64_t col_end = std::min(col0 + kTile, source.cols);
      for (int64_t col = col0; col < col_end; ++col) {
        for (int64_t row = row0; row < row_end; ++row) {
          const T value = element(row, col);
          std::memcpy(target + (col * source.rows + row) * int64_t{sizeof(T)}, &value, sizeof(T));
        }
      }
    }
  }
}

template <typename T>
void transpose_stored(const WeightView& source, uint8_t* target) {
  transpose_tiles<T>(source, target, [&](int64_t row, int64_t col) {
    T value;
    std::memcpy(&value, static_cast<const uint8_t*>(source.row(row)) + col * int64_t{sizeof(T)},
                sizeof(T));
    return value;
  });
}

WeightFormat transposed_format(WeightFormat format) {
  NANOCP_CHECK(format != WeightFormat::kMxfp4);
  return format == WeightFormat::kFp8Block ? WeightFormat::kF32 : format;
}

}  // namespace

int64_t transposed_bytes(const WeightView& source) {
  return source.cols * tensor::row_bytes(transposed_format(source.format), source.rows);
}

WeightView transposed_view(const WeightView& source, const uint8_t* target) {
  WeightView view;
  view.format = transposed_format(source.format);
  view.data = target;
  view.rows = source.cols;
  view.cols = source.rows;
  view.stride_bytes = tensor::row_bytes(view.format, view.cols);
  return view;
}

void transpose_weight(const WeightView& source, uint8_t* target) {
  if (source.format == WeightFormat::kFp8Block) {
    transpose_tiles<float>(source, target, [&](int64_t row, int64_t col) {
      return ops::weight_element(source, row, col);
    });
  } else if (source.format == WeightFormat::kF32) {
    transpose_stored<uint32_t>(source, target);
  } else {
    transpose_stored<uint16_t>(source, target);
  }
}

}  // namespace nanocp::model
