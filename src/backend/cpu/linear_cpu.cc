#include <cblas.h>

#include <algorithm>
#include <vector>

#include "backend/cpu/simd/simd_kernels.h"
#include "ops/cpu_backend.h"

namespace nanocp::cpu {
namespace {

using tensor::WeightView;

// Up to here weights are streamed once from memory and multiplied as they are decoded; above, tiles
// are decoded into cache and given to OpenBLAS.
constexpr int64_t kStreamedRowsMax = 16;

// 64 x 1024 floats are 256 KiB: a tile stays in the second-level cache.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileCols = 1024;

// Below this much work a loop is not worth waking other threads for.
constexpr int64_t kMinPartBytes = 64 * 1024;

void stream(const ops::Context& context, tensor::ConstMatrix x, const WeightView& w,
            tensor::Matrix out) {
  const int64_t bytes = std::max<int64_t>(1, tensor::row_bytes(w.format, w.cols));
  const int64_t grain = std::max<int64_t>(4, kMinPartBytes / bytes);
  context.pool->parallel_for(w.rows, grain, [&](int64_t begin, int64_t end) {
    simd_kernels().linear_rows({.w = &w,
                                .row_begin = begin,
                                .row_end = end,
                                .x = x.data,
                                .x_stride = x.stride,
                                .num_rows = x.rows,
                                .out = out.data,
                                .out_stride = out.stride});
  });
}

struct Tile {
  int64_t row;
  int64_t num_rows;
  int64_t col;
  int64_t num_cols;
};

// out[:, tile rows] (+)= x[:, tile columns] x tile^T, with tile values at `values`.
void multiply_tile(tensor::ConstMatrix x, const Tile& tile, const float* values, int64_t stride,
                   tensor::Matrix out) {
  const float beta = tile.col == 0 ? 0.0F : 1.0F;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<blasint>(x.rows),
              static_cast<blasint>(tile.num_rows), static_cast<blasint>(tile.num_cols), 1.0F,
              x.data + tile.col, static_cast<blasint>(x.stride), values,
              static_cast<blasint>(stride), beta, out.data + tile.row,
              static_cast<blasint>(out.stride));
}

void decode_tile(const WeightView& w, const Tile& tile, float* values) {
  for (int64_t r = 0; r < tile.num_rows; ++r) {
    simd_kernels().decode_row({.w = &w,
                               .row = tile.row + r,
                               .col_begin = tile.col,
                               .count = tile.num_cols,
                               .out = values + r * kTileCols});
  }
}

void multiply_rows(tensor::ConstMatrix x, const WeightView& w, tensor::Matrix out, int64_t begin,
                   int64_t end) {
  thread_local std::vector<float> values(static_cast<size_t>(kTileRows * kTileCols));
  for (int64_t row = begin; row < end; row += kTileRows) {
    const int64_t num_rows = std::min(kTileRows, end - row);
    for (int64_t col = 0; col < w.cols; col += kTileCols) {
      const Tile tile = {row, num_rows, col, std::min(kTileCols, w.cols - col)};
      decode_tile(w, tile, values.data());
      multiply_tile(x, tile, values.data(), kTileCols, out);
    }
  }
}

// OpenBLAS must not start threads of its own: the instances' pools already use every core.
void use_one_blas_thread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace

void linear(const ops::Context& context, tensor::ConstMatrix x, const WeightView& w,
            tensor::Matrix out) {
  if (x.rows <= kStreamedRowsMax) {
    stream(context, x, w, out);
    return;
  }
  use_one_blas_thread();
  context.pool->parallel_for(
      w.rows, kTileRows, [&](int64_t begin, int64_t end) { multiply_rows(x, w, out, begin, end); });
}

void decode_row(const WeightView& w, int64_t row, std::span<float> out) {
  simd_kernels().decode_row({.w = &w,
                             .row = row,
                             .col_begin = 0,
                             .count = static_cast<int64_t>(out.size()),
                             .out = out.data()});
}

}  // namespace nanocp::cpu
