// Compiled once per instruction set with NANOCP_SIMD_VARIANT set to its name.
#include "backend/cpu/simd/simd_kernels.h"

#include <algorithm>
#include <limits>

#include "backend/cpu/simd/vec.h"

namespace nanocp::cpu {
namespace {

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

inline float power_of_two(uint8_t e8m0) {
  return std::bit_cast<float>(e8m0 == 0 ? 0x00400000U : static_cast<uint32_t>(e8m0) << 23);
}

template <WeightFormat kFormat>
inline float block_scale(const WeightView& w, int64_t row, int64_t block) {
  if constexpr (kFormat == WeightFormat::kFp8Block) {
    const int64_t block_row = (row + w.scale_row_offset) / w.block_rows;
    return w.scales[block_row * w.scale_stride + block] * kFp8Rescale;
  } else if constexpr (kFormat == WeightFormat::kMxfp4) {
    return power_of_two(w.group_scales[row * w.group_scale_stride + block]);
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

inline Vec load_tail(const float* p, int64_t count) {
  alignas(64) float values[kWidth] = {};
  std::memcpy(values, p, static_cast<size_t>(count) * sizeof(float));
  return load(values);
}

// A register tile: kRows weight rows against kXRows rows of x.
template <WeightFormat kFormat, int kRows, int kXRows>
struct LinearTile {
  Vec acc[kRows][kXRows];

  inline void step(const Vec (&weights)[kRows], const Vec (&xs)[kXRows]) {
    for (int m = 0; m < kXRows; ++m) {
      for (int r = 0; r < kRows; ++r) acc[r][m] = fma(weights[r], xs[m], acc[r][m]);
    }
  }

  // Columns [begin, end), which share their scales.
  inline void run_block(const uint8_t* const (&rows)[kRows], const Vec (&scales)[kRows],
                        const float* x, int64_t x_stride, int64_t begin, int64_t end) {
    Vec weights[kRows];
    Vec xs[kXRows];
    int64_t col = begin;
    for (; col + kWidth <= end; col += kWidth) {
      for (int r = 0; r < kRows; ++r) {
        weights[r] = load_weights<kFormat>(rows[r], col);
        if constexpr (has_scales(kFormat)) weights[r] = mul(weights[r], scales[r]);
      }
      for (int m = 0; m < kXRows; ++m) xs[m] = load(x + m * x_stride + col);
      step(weights, xs);
    }
    if (col == end) return;
    for (int r = 0; r < kRows; ++r) {
      weights[r] = load_weights_tail<kFormat>(rows[r], col, end - col);
      if constexpr (has_scales(kFormat)) weights[r] = mul(weights[r], scales[r]);
    }
    for (int m = 0; m < kXRows; ++m) xs[m] = load_tail(x + m * x_stride + col, end - col);
    step(weights, xs);
  }
};

template <WeightFormat kFormat, int kRows, int kXRows>
void linear_tile(const LinearRowsArgs& args, int64_t row, int64_t x_row) {
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

// Blocks lie anywhere, so the processor's own prefetching starts anew with each: the next one is
// asked for while this one is computed. Groups of queries read the same tokens one after another;
// each asks for its share of the lines, since a burst of requests would stall the loads behind it.
struct FetchAhead {
  int group;  // of this tile's queries
  int num_groups;

  template <int kCount>
  inline void fetch(const float* first, int64_t stride) const {
    for (int i = group; i < kCount; i += num_groups) __builtin_prefetch(first + i * stride);
  }
};

inline FetchAhead fetch_ahead_for(const AttendTokensArgs& args, int query) {
  return {query / 4, (args.num_queries + 3) / 4};
}

constexpr int kScoreStride = kAttendTokensMax + 16;

template <int kQueries, int kTokens>
inline void store_scores(const AttendTokensArgs& args, int query, int token,
                         const Vec (&acc)[kQueries][kTokens]) {
#if defined(__AVX512F__)
  if constexpr (kQueries == 4 && kTokens == 4) {
    alignas(64) float sums[16];
    store(sums, sum16(acc));
    for (int i = 0; i < 4; ++i) {
      std::memcpy(args.scores + (query + i) * kScoreStride + token, sums + 4 * i,
                  4 * sizeof(float));
    }
    return;
  }
#endif
  for (int i = 0; i < kQueries; ++i) {
    for (int t = 0; t < kTokens; ++t) {
      args.scores[(query + i) * kScoreStride + token + t] = sum(acc[i][t]);
    }
  }
}

#if defined(__AVX512F__)
constexpr int kTileTokens = 4;
#else
constexpr int kTileTokens = 2;
#endif

// Scores of kQueries queries against kTokens tokens.
template <int kQueries, int kTokens>
inline void dot_tile(const AttendTokensArgs& args, int query, int token) {
  Vec acc[kQueries][kTokens];
  for (int i = 0; i < kQueries; ++i) {
    for (int t = 0; t < kTokens; ++t) acc[i][t] = zero();
  }
  const FetchAhead ahead = fetch_ahead_for(args, query);
  const float* k = args.k + token * args.k_stride;
  const float* const* q = args.q + query;
  int64_t d = 0;
  for (; d + kWidth <= args.k_dim; d += kWidth) {
    Vec ks[kTokens];
    for (int t = 0; t < kTokens; ++t) ks[t] = load(k + t * args.k_stride + d);
    ahead.fetch<kTokens>(args.next_k + token * args.k_stride + d, args.k_stride);
    for (int i = 0; i < kQueries; ++i) {
      const Vec qs = load(q[i] + d);
      for (int t = 0; t < kTokens; ++t) acc[i][t] = fma(qs, ks[t], acc[i][t]);
    }
  }
  if (d < args.k_dim) {
    for (int i = 0; i < kQueries; ++i) {
      const Vec qs = load_tail(q[i] + d, args.k_dim - d);
      for (int t = 0; t < kTokens; ++t) {
        acc[i][t] = fma(qs, load_tail(k + t * args.k_stride + d, args.k_dim - d), acc[i][t]);
      }
    }
  }
  store_scores<kQueries, kTokens>(args, query, token, acc);
}

template <int kQueries>
void score_queries(const AttendTokensArgs& args, int query) {
  int begin = args.begin[query];
  int end = args.end[query];
  for (int i = 1; i < kQueries; ++i) {
    begin = std::min(begin, args.begin[query + i]);
    end = std::max(end, args.end[query + i]);
  }
  int token = begin;
  for (; token + kTileTokens <= end; token += kTileTokens) {
    dot_tile<kQueries, kTileTokens>(args, query, token);
  }
  for (; token < end; ++token) dot_tile<kQueries, 1>(args, query, token);
}

// Turns a query's scores into weights and rescales its state to the new maximum.
void update_softmax(const AttendTokensArgs& args, int query) {
  const int begin = args.begin[query];
  const int end = args.end[query];
  float* scores = args.scores + query * kScoreStride;
  for (int t = end; t < end + kWidth; ++t) scores[t] = -std::numeric_limits<float>::infinity();
  Vec largest_of = load(scores + begin);
  for (int t = begin + kWidth; t < end; t += kWidth) largest_of = max(largest_of, load(scores + t));
  const float old_max = args.row_max[query];
  const float new_max = std::max(old_max, largest(largest_of));
  const Vec shift = set1(-new_max);
  Vec total = zero();
  for (int t = begin; t < end; t += kWidth) {
    const Vec weights = exp(add(load(scores + t), shift));
    store(scores + t, weights);
    // Padding lanes weigh e^-87 at most: below float resolution of the sum, which is >= 1.
    total = add(total, weights);
  }
  const float rescale = new_max == old_max ? 1.0F : std::exp(old_max - new_max);
  args.row_sum[query] = args.row_sum[query] * rescale + sum(total);
  args.row_max[query] = new_max;
  if (rescale == 1.0F) return;
  float* acc = args.acc + int64_t{query} * args.v_dim;
  for (int d = 0; d < args.v_dim; ++d) acc[d] *= rescale;
}

// acc += weights x V for kQueries queries that see the same tokens, kVecs registers of V's columns
// at a time.
template <int kQueries, int kVecs>
inline void add_values(const AttendTokensArgs& args, int query, int64_t d) {
  const float* weights = args.scores + query * kScoreStride;
  float* acc = args.acc + int64_t{query} * args.v_dim + d;
  const FetchAhead ahead = fetch_ahead_for(args, query);
  Vec sums[kQueries][kVecs];
  for (int q = 0; q < kQueries; ++q) {
    for (int i = 0; i < kVecs; ++i) sums[q][i] = load(acc + q * int64_t{args.v_dim} + i * kWidth);
  }
  for (int t = args.begin[query]; t < args.end[query]; ++t) {
    const float* v = args.v + t * args.v_stride + d;
    Vec values[kVecs];
    for (int i = 0; i < kVecs; ++i) values[i] = load(v + i * kWidth);
    ahead.fetch<kVecs>(args.next_v + t * args.v_stride + d, kWidth);
    for (int q = 0; q < kQueries; ++q) {
      const Vec weight = set1(weights[q * kScoreStride + t]);
      for (int i = 0; i < kVecs; ++i) sums[q][i] = fma(weight, values[i], sums[q][i]);
    }
  }
  for (int q = 0; q < kQueries; ++q) {
    for (int i = 0; i < kVecs; ++i) store(acc + q * int64_t{args.v_dim} + i * kWidth, sums[q][i]);
  }
}

template <int kQueries>
void add_all_values(const AttendTokensArgs& args, int query) {
  int64_t d = 0;
  for (; d + 4 * kWidth <= args.v_dim; d += 4 * kWidth) add_values<kQueries, 4>(args, query, d);
  for (; d + kWidth <= args.v_dim; d += kWidth) add_values<kQueries, 1>(args, query, d);
  for (int q = query; q < query + kQueries; ++q) {
    for (int64_t tail = d; tail < args.v_dim; ++tail) {
      float& acc = args.acc[int64_t{q} * args.v_dim + tail];
      for (int t = args.begin[q]; t < args.end[q]; ++t) {
        acc += args.scores[q * kScoreStride + t] * args.v[t * args.v_stride + tail];
      }
    }
  }
}

#if defined(__AVX512F__)
constexpr int kTileQueries = 4;
#else
constexpr int kTileQueries = 2;
#endif

// Whether the next kTileQueries queries see the same tokens, at least one.
bool see_the_same(const AttendTokensArgs& args, int query) {
  if (query + kTileQueries > args.num_queries || args.begin[query] >= args.end[query]) return false;
  for (int i = 1; i < kTileQueries; ++i) {
    if (args.begin[query + i] != args.begin[query] || args.end[query + i] != args.end[query]) {
      return false;
    }
  }
  return true;
}

void attend_tokens(const AttendTokensArgs& args) {
  int query = 0;
  for (; query + 4 <= args.num_queries; query += 4) score_queries<4>(args, query);
  for (; query < args.num_queries; ++query) score_queries<1>(args, query);
  for (query = 0; query < args.num_queries; ++query) {
    if (args.begin[query] < args.end[query]) update_softmax(args, query);
  }
  for (query = 0; query < args.num_queries;) {
    if (see_the_same(args, query)) {
      add_all_values<kTileQueries>(args, query);
      query += kTileQueries;
    } else {
      if (args.begin[query] < args.end[query]) add_all_values<1>(args, query);
      ++query;
    }
  }
}

#define NANOCP_STRING_INNER(x) #x
#define NANOCP_STRING(x) NANOCP_STRING_INNER(x)
#define NANOCP_NAME_INNER(x) simd_kernels_##x
#define NANOCP_NAME(x) NANOCP_NAME_INNER(x)

}  // namespace

extern const SimdKernels NANOCP_NAME(NANOCP_SIMD_VARIANT);
const SimdKernels NANOCP_NAME(NANOCP_SIMD_VARIANT) = {NANOCP_STRING(NANOCP_SIMD_VARIANT),
                                                      linear_rows, decode_row, attend_tokens};

}  // namespace nanocp::cpu
