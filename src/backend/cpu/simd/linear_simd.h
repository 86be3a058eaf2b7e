// Weights as stored times a few rows of floats, and their decoding. Included only by
// simd_kernels.cc, which is compiled once per instruction set.
#pragma once

#include <algorithm>

#include "backend/cpu/simd/simd_kernels.h"
#include "backend/cpu/simd/vec.h"

namespace nanocp::cpu {
namespace {  // one copy per instruction set

using tensor::WeightFormat;
using tensor::WeightView;

// Values of one row from column `col`, before the block's scale.
template <WeightFormat kFormat>
inline Vec load_weights(const uint8_t* row, int64_t col) {
  if constexpr (kFormat == WeightFormat::kF32) {
    return load(reinterpret_cast<const float*>(row) + col);
  } else if constexpr (kFormat == WeightFormat::kF16) {
    return load_f16(row + 2 * col);
  } else if constexpr (kFormat == WeightFormat::kBf16) {
    return load_bf16(row + 2 * col);
  } else if constexpr (kFormat == WeightFormat::kFp8Block) {
    return load_fp8(row + col);
  } else {
    return load_mxfp4(row + col / 2);
  }
}

constexpr bool has_scales(WeightFormat format) {
  return format == WeightFormat::kFp8Block || format == WeightFormat::kMxfp4;
}

// Columns that share one scale.
template <WeightFormat kFormat>
int64_t scale_block_cols(const WeightView& w) {
  if constexpr (kFormat == WeightFormat::kFp8Block) return w.block_cols;
  if constexpr (kFormat == WeightFormat::kMxfp4) return tensor::kMxfp4GroupSize;
  return w.cols;
}

template <WeightFormat kFormat>
inline float block_scale(const WeightView& w, int64_t row, int64_t block) {
  if constexpr (kFormat == WeightFormat::kFp8Block) {
    const int64_t block_row = (row + w.scale_row_offset) / w.block_rows;
    return w.scales[block_row * w.scale_stride + block] * kFp8Rescale;
  } else if constexpr (kFormat == WeightFormat::kMxfp4) {
    return power_of_two_of(w.group_scales[row * w.group_scale_stride + block]);
  } else {
    return 1.0F;
  }
}

// Values [col, col + count) of a row, count < kWidth, zero-padded; reads nothing past the row.
template <WeightFormat kFormat>
inline Vec load_weights_tail(const uint8_t* row, int64_t col, int64_t count) {
  alignas(64) uint8_t bytes[kWidth * sizeof(float)] = {};
  const int64_t first = tensor::row_bytes(kFormat, col);
  const int64_t size =
      kFormat == WeightFormat::kMxfp4 ? (count + 1) / 2 : tensor::row_bytes(kFormat, count);
  std::memcpy(bytes, row + first, static_cast<size_t>(size));
  return load_weights<kFormat>(bytes, 0);
}

// A register tile: kRows weight rows against kXRows rows of x.
template <WeightFormat kFormat, int kRows, int kXRows>
struct LinearTile {
  // With registers to spare the scale is applied once per block, to its sums, not to each weight.
  static constexpr bool kScaleSums = has_scales(kFormat) && kRows * kXRows <= 8;
  static constexpr bool kScaleWeights = has_scales(kFormat) && !kScaleSums;

  Vec acc[kRows][kXRows];

  static inline void step(Vec (&sums)[kRows][kXRows], const Vec (&weights)[kRows],
                          const Vec (&xs)[kXRows]) {
    for (int m = 0; m < kXRows; ++m) {
      for (int r = 0; r < kRows; ++r) sums[r][m] = fma(weights[r], xs[m], sums[r][m]);
    }
  }

  // Columns [begin, end), which share their scales.
  static inline void add_columns(Vec (&sums)[kRows][kXRows], const uint8_t* const (&rows)[kRows],
                                 const Vec (&scales)[kRows], const float* x, int64_t x_stride,
                                 int64_t begin, int64_t end) {
    Vec weights[kRows];
    Vec xs[kXRows];
    int64_t col = begin;
    for (; col + kWidth <= end; col += kWidth) {
      for (int r = 0; r < kRows; ++r) {
        weights[r] = load_weights<kFormat>(rows[r], col);
        if constexpr (kScaleWeights) weights[r] = mul(weights[r], scales[r]);
      }
      for (int m = 0; m < kXRows; ++m) xs[m] = load(x + m * x_stride + col);
      step(sums, weights, xs);
    }
    if (col == end) return;
    for (int r = 0; r < kRows; ++r) {
      weights[r] = load_weights_tail<kFormat>(rows[r], col, end - col);
      if constexpr (kScaleWeights) weights[r] = mul(weights[r], scales[r]);
    }
    for (int m = 0; m < kXRows; ++m) xs[m] = load_tail(x + m * x_stride + col, end - col);
    step(sums, weights, xs);
  }

  inline void run_block(const uint8_t* const (&rows)[kRows], const Vec (&scales)[kRows],
                        const float* x, int64_t x_stride, int64_t begin, int64_t end) {
    if constexpr (kScaleSums) {
      Vec sums[kRows][kXRows];
      for (int r = 0; r < kRows; ++r) {
        for (int m = 0; m < kXRows; ++m) sums[r][m] = zero();
      }
      add_columns(sums, rows, scales, x, x_stride, begin, end);
      for (int r = 0; r < kRows; ++r) {
        for (int m = 0; m < kXRows; ++m) acc[r][m] = fma(sums[r][m], scales[r], acc[r][m]);
      }
    } else {
      add_columns(acc, rows, scales, x, x_stride, begin, end);
    }
  }
};

// mxfp4: a group of 32 columns is decoded at once and its scale applied to the group's sum.
template <int kRows, int kXRows>
void mxfp4_tile(const LinearRowsArgs& args, int64_t row, int64_t x_row) {
  constexpr int kVecs = static_cast<int>(tensor::kMxfp4GroupSize) / kWidth;
  const WeightView& w = *args.w;
  const uint8_t* codes = static_cast<const uint8_t*>(w.data) + row * w.stride_bytes;
  const uint8_t* scales = w.group_scales + row * w.group_scale_stride;
  const float* x = args.x + x_row * args.x_stride;
  Vec acc[kRows][kXRows];
  for (int r = 0; r < kRows; ++r) {
    for (int m = 0; m < kXRows; ++m) acc[r][m] = zero();
  }
  const int64_t num_groups = w.cols / tensor::kMxfp4GroupSize;
  for (int64_t g = 0; g < num_groups; ++g) {
    for (int r = 0; r < kRows; ++r) {
      Vec weights[kVecs];
      load_mxfp4_group(codes + r * w.stride_bytes + 16 * g, weights);
      const Vec scale = set1_power_of_two(scales[r * w.group_scale_stride + g]);
      for (int m = 0; m < kXRows; ++m) {
        const float* xs = x + m * args.x_stride + tensor::kMxfp4GroupSize * g;
        Vec sum_of_group = mul(weights[0], load(xs));
        for (int i = 1; i < kVecs; ++i) {
          sum_of_group = fma(weights[i], load(xs + i * kWidth), sum_of_group);
        }
        acc[r][m] = fma(sum_of_group, scale, acc[r][m]);
      }
    }
  }
  for (int m = 0; m < kXRows; ++m) {
    for (int r = 0; r < kRows; ++r) {
      args.out[(x_row + m) * args.out_stride + row + r] = sum(acc[r][m]);
    }
  }
}

template <WeightFormat kFormat, int kRows, int kXRows>
void linear_tile(const LinearRowsArgs& args, int64_t row, int64_t x_row) {
  if constexpr (kFormat == WeightFormat::kMxfp4) return mxfp4_tile<kRows, kXRows>(args, row, x_row);
  const WeightView& w = *args.w;
  LinearTile<kFormat, kRows, kXRows> tile;
  const uint8_t* rows[kRows];
  for (int r = 0; r < kRows; ++r) {
    rows[r] = static_cast<const uint8_t*>(w.data) + (row + r) * w.stride_bytes;
    for (int m = 0; m < kXRows; ++m) tile.acc[r][m] = zero();
  }
  const float* x = args.x + x_row * args.x_stride;
  const int64_t block_cols = scale_block_cols<kFormat>(w);
  int64_t block = 0;
  for (int64_t begin = 0; begin < w.cols; begin += block_cols, ++block) {
    Vec scales[kRows];
    for (int r = 0; r < kRows; ++r) scales[r] = set1(block_scale<kFormat>(w, row + r, block));
    tile.run_block(rows, scales, x, args.x_stride, begin, std::min(w.cols, begin + block_cols));
  }
  for (int m = 0; m < kXRows; ++m) {
    for (int r = 0; r < kRows; ++r) {
      args.out[(x_row + m) * args.out_stride + row + r] = sum(tile.acc[r][m]);
    }
  }
}

#if defined(__AVX512F__)
constexpr int kTileXRows = 4;  // 16 accumulators, 4 weights, 4 inputs: fits 32 registers
#else
constexpr int kTileXRows = 2;  // 8 accumulators fit 16 registers
#endif
constexpr int kTileRows = 4;

template <WeightFormat kFormat, int kRows>
void linear_row_group(const LinearRowsArgs& args, int64_t row) {
  int64_t m = 0;
  if constexpr (kRows > 1) {
    for (; m + kTileXRows <= args.num_rows; m += kTileXRows) {
      linear_tile<kFormat, kRows, kTileXRows>(args, row, m);
    }
  }
  for (; m < args.num_rows; ++m) linear_tile<kFormat, kRows, 1>(args, row, m);
}

template <WeightFormat kFormat>
void linear_rows_of(const LinearRowsArgs& args) {
  int64_t row = args.row_begin;
  for (; row + kTileRows <= args.row_end; row += kTileRows) {
    linear_row_group<kFormat, kTileRows>(args, row);
  }
  for (; row < args.row_end; ++row) linear_row_group<kFormat, 1>(args, row);
}

void linear_rows(const LinearRowsArgs& args) {
  switch (args.w->format) {
    case WeightFormat::kF32:
      return linear_rows_of<WeightFormat::kF32>(args);
    case WeightFormat::kF16:
      return linear_rows_of<WeightFormat::kF16>(args);
    case WeightFormat::kBf16:
      return linear_rows_of<WeightFormat::kBf16>(args);
    case WeightFormat::kFp8Block:
      return linear_rows_of<WeightFormat::kFp8Block>(args);
    case WeightFormat::kMxfp4:
      return linear_rows_of<WeightFormat::kMxfp4>(args);
  }
}

template <WeightFormat kFormat>
void decode_row_of(const DecodeRowArgs& args) {
  const WeightView& w = *args.w;
  const auto* row = static_cast<const uint8_t*>(w.data) + args.row * w.stride_bytes;
  const int64_t block_cols = scale_block_cols<kFormat>(w);
  const int64_t end = args.col_begin + args.count;
  int64_t col = args.col_begin;
  while (col < end) {
    const int64_t block = col / block_cols;
    const int64_t block_end = std::min(end, (block + 1) * block_cols);
    const Vec scale = set1(block_scale<kFormat>(w, args.row, block));
    float* out = args.out + (col - args.col_begin);
    for (; col + kWidth <= block_end; col += kWidth, out += kWidth) {
      store(out, mul(load_weights<kFormat>(row, col), scale));
    }
    if (col == block_end) continue;
    alignas(64) float values[kWidth];
    store(values, mul(load_weights_tail<kFormat>(row, col, block_end - col), scale));
    std::memcpy(out, values, static_cast<size_t>(block_end - col) * sizeof(float));
    col = block_end;
  }
}

void decode_row(const DecodeRowArgs& args) {
  switch (args.w->format) {
    case WeightFormat::kF32:
      return decode_row_of<WeightFormat::kF32>(args);
    case WeightFormat::kF16:
      return decode_row_of<WeightFormat::kF16>(args);
    case WeightFormat::kBf16:
      return decode_row_of<WeightFormat::kBf16>(args);
    case WeightFormat::kFp8Block:
      return decode_row_of<WeightFormat::kFp8Block>(args);
    case WeightFormat::kMxfp4:
      return decode_row_of<WeightFormat::kMxfp4>(args);
  }
}

}  // namespace
}  // namespace nanocp::cpu
