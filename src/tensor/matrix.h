// Non-owning views of row-major float32 matrices, and their owner. Activations are float32 on the
// CPU. A view is valid as long as what it points into; copies of a view are cheap.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"

namespace nanocp::tensor {

template <typename T>
struct BasicMatrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next, >= cols

  T* row(int64_t index) const {
    NANOCP_DCHECK(index >= 0 && index < rows);
    return data + index * stride;
  }
  std::span<T> row_span(int64_t index) const { return {row(index), static_cast<size_t>(cols)}; }
  // Columns [begin, begin + count) of every row.
  BasicMatrix columns(int64_t begin, int64_t count) const {
    NANOCP_DCHECK(begin >= 0 && begin + count <= cols);
    return {advanced(begin), rows, count, stride};
  }
  BasicMatrix row_range(int64_t begin, int64_t count) const {
    NANOCP_DCHECK(begin >= 0 && begin + count <= rows);
    return {advanced(begin * stride), count, cols, stride};
  }
  // A matrix without rows may have no memory.
  T* advanced(int64_t count) const { return data == nullptr ? nullptr : data + count; }
  operator BasicMatrix<const T>() const { return {data, rows, cols, stride}; }  // NOLINT
};

using Matrix = BasicMatrix<float>;
using ConstMatrix = BasicMatrix<const float>;

// Owns memory that grows and is reused from step to step; contents are undefined after resize.
class MatrixBuffer {
 public:
  Matrix resize(int64_t rows, int64_t cols) {
    const auto needed = static_cast<size_t>(rows * cols);
    if (storage_.size() < needed) storage_.resize(needed);
    view_ = {storage_.data(), rows, cols, cols};
    return view_;
  }
  Matrix view() const { return view_; }

 private:
  std::vector<float> storage_;
  Matrix view_;
};

}  // namespace nanocp::tensor
