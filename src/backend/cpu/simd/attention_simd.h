// The running softmax over a few adjacent tokens. Included only by simd_kernels.cc, which is
// compiled once per instruction set.
#pragma once

#include <algorithm>
#include <limits>

#include "backend/cpu/simd/simd_kernels.h"
#include "backend/cpu/simd/vec.h"

namespace nanocp::cpu {
namespace {  // one copy per instruction set

// Blocks lie anywhere, so the processor's own prefetching starts anew with each: the next one is
// asked for while this one is computed. Groups of queries read the same tokens one after another;
// each asks for its share of the lines, since a burst of requests would stall the loads behind it.
// Into the second-level cache: the first holds what is being computed and little more.
struct FetchAhead {
  int group;  // of this tile's queries
  int num_groups;

  template <int kCount>
  inline void fetch(const float* first, int64_t stride) const {
    for (int i = group; i < kCount; i += num_groups) __builtin_prefetch(first + i * stride, 0, 2);
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

}  // namespace
}  // namespace nanocp::cpu
