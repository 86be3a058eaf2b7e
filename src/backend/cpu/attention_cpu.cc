// Paged attention on the CPU. Work is cut into units of up to kQueriesMax queries of one KV head
// over a range of blocks; a range is split only when there are fewer units than threads want. What
// is not cached as float32 is decoded once per unit, some tokens at a time.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "backend/cpu/simd/simd_kernels.h"
#include "ops/cpu_backend.h"

namespace nanocp::cpu {
namespace {

using ops::AttentionArgs;

constexpr int32_t kQueriesMax = 128;
// A split shorter than this costs more in its merge than it gains.
constexpr int64_t kMinSplitTokens = 512;
constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

struct Unit {
  const AttentionItem* item;
  int32_t kv_head;
  int32_t row;  // first row, counted from the item's first
  int32_t num_rows;
  int32_t head;  // first query head of the KV head's group
  int32_t num_heads;
  int32_t block_begin;
  int32_t block_end;
  int32_t split;  // index of the block range; 0 writes to the result, others to scratch
};

// Blocks of the item that rows [row, row + num_rows) can see at all.
struct BlockRange {
  int32_t begin;
  int32_t end;
};
BlockRange visible_blocks(const AttentionArgs& args, const AttentionItem& item, int32_t row,
                          int32_t num_rows) {
  const int64_t block_size = args.desc.block_size;
  const int64_t last = int64_t{item.first_position} + row + num_rows - 1;
  const auto& idx = item.block_idx;
  auto end = std::upper_bound(idx.begin(), idx.end(), last / block_size);
  auto begin = idx.begin();
  if (args.desc.sliding_window > 0) {
    const int64_t first =
        std::max<int64_t>(0, int64_t{item.first_position} + row - args.desc.sliding_window + 1);
    begin = std::lower_bound(idx.begin(), end, first / block_size);
  }
  return {static_cast<int32_t>(begin - idx.begin()), static_cast<int32_t>(end - idx.begin())};
}

class UnitList {
 public:
  UnitList(const AttentionArgs& args, int num_threads) : args_(args) {
    for (const AttentionItem& item : args.items) add_item(item);
    split_for(num_threads);
  }
  const std::vector<Unit>& units() const { return units_; }
  int32_t num_splits() const { return num_splits_; }

 private:
  void add_item(const AttentionItem& item) {
    const int32_t group = args_.desc.num_heads / args_.desc.num_kv_heads;
    const int32_t heads_per_unit = std::min(group, kQueriesMax);
    const int32_t rows_per_unit = std::max(1, kQueriesMax / group);
    for (int32_t row = 0; row < item.num_rows; row += rows_per_unit) {
      const int32_t num_rows = std::min(rows_per_unit, item.num_rows - row);
      const BlockRange blocks = visible_blocks(args_, item, row, num_rows);
      for (int32_t kv_head = 0; kv_head < args_.desc.num_kv_heads; ++kv_head) {
        for (int32_t head = 0; head < group; head += heads_per_unit) {
          units_.push_back({&item, kv_head, row, num_rows, head,
                            std::min(heads_per_unit, group - head), blocks.begin, blocks.end, 0});
        }
      }
    }
  }

  void split_for(int num_threads) {
    const auto count = static_cast<int64_t>(units_.size());
    if (num_threads == 1 || count == 0 || count >= int64_t{4} * num_threads) return;
    const int64_t wanted = (int64_t{4} * num_threads + count - 1) / count;
    const int64_t min_blocks = std::max<int64_t>(1, kMinSplitTokens / args_.desc.block_size);
    std::vector<Unit> split;
    for (const Unit& unit : units_) {
      const int64_t blocks = unit.block_end - unit.block_begin;
      const int64_t parts = std::clamp<int64_t>(blocks / min_blocks, 1, wanted);
      for (int64_t p = 0; p < parts; ++p) {
        Unit part = unit;
        part.block_begin = unit.block_begin + static_cast<int32_t>(blocks * p / parts);
        part.block_end = unit.block_begin + static_cast<int32_t>(blocks * (p + 1) / parts);
        part.split = static_cast<int32_t>(p);
        split.push_back(part);
      }
      num_splits_ = std::max(num_splits_, static_cast<int32_t>(parts));
    }
    units_ = std::move(split);
  }

  const AttentionArgs& args_;
  std::vector<Unit> units_;
  int32_t num_splits_ = 1;
};

// Per-thread memory of one unit: scaled queries, running softmax, accumulators.
struct UnitScratch {
  std::vector<float> q;
  std::vector<const float*> q_rows;
  std::vector<float> row_max, row_sum, acc, scores;
  std::vector<int32_t> begin, end;
  std::vector<float> k, v;  // decoded tokens

  void reset(size_t num_queries, size_t k_dim, size_t v_dim) {
    q.resize(num_queries * k_dim);
    q_rows.resize(num_queries);
    for (size_t i = 0; i < num_queries; ++i) q_rows[i] = q.data() + i * k_dim;
    row_max.assign(num_queries, kNothingSeen);
    row_sum.assign(num_queries, 0.0F);
    acc.assign(num_queries * v_dim, 0.0F);
    scores.resize(num_queries * (kAttendTokensMax + 16));
    begin.resize(num_queries);
    end.resize(num_queries);
  }
};

class UnitRunner {
 public:
  UnitRunner(const AttentionArgs& args, const Unit& unit, UnitScratch& scratch)
      : args_(args), unit_(unit), scratch_(scratch), num_queries_(unit.num_rows * unit.num_heads) {
    scratch_.reset(static_cast<size_t>(num_queries_), static_cast<size_t>(args.desc.k_dim),
                   static_cast<size_t>(args.desc.v_dim));
  }

  void run(tensor::Matrix out, tensor::Matrix lse) {
    load_queries();
    for (int32_t b = unit_.block_begin; b < unit_.block_end; ++b) {
      for (int32_t t = 0; t < args_.desc.block_size; t += kAttendTokensMax) {
        attend(b, t, std::min(kAttendTokensMax, args_.desc.block_size - t));
      }
    }
    write(out, lse);
  }

 private:
  int32_t row_of(int32_t query) const { return unit_.row + query / unit_.num_heads; }
  int64_t head_of(int32_t query) const {
    const int32_t group = args_.desc.num_heads / args_.desc.num_kv_heads;
    return int64_t{unit_.kv_head} * group + unit_.head + query % unit_.num_heads;
  }

  void load_queries() {
    const int32_t k_dim = args_.desc.k_dim;
    for (int32_t i = 0; i < num_queries_; ++i) {
      const float* q = args_.q.row(unit_.item->row_begin + row_of(i)) + head_of(i) * k_dim;
      float* scaled = scratch_.q.data() + int64_t{i} * k_dim;
      for (int32_t d = 0; d < k_dim; ++d) scaled[d] = q[d] * args_.desc.softmax_scale;
    }
  }

  int64_t base_of(int32_t b) const {
    return unit_.item->blocks[static_cast<size_t>(b)] * args_.cache.block_stride +
           unit_.kv_head * args_.cache.head_stride;
  }

  // What a call of attend_tokens reads.
  struct TokenValues {
    const float* k;
    const float* v;
    const float* next_k;
    const float* next_v;
    int64_t k_stride;
    int64_t v_stride;
  };

  TokenValues cached_values(int32_t b, int32_t first, int32_t count) const {
    const ops::KvCacheView& cache = args_.cache;
    const int64_t base = base_of(b) + first * cache.token_stride;
    const int64_t next = first + count < args_.desc.block_size ? base + count * cache.token_stride
                         : b + 1 < unit_.block_end             ? base_of(b + 1)
                                                               : base;
    const auto* k = static_cast<const float*>(cache.k);
    const auto* v = static_cast<const float*>(cache.v);
    return {k + base, v + base, k + next, v + next, cache.token_stride, cache.token_stride};
  }

  // `dim` values of tokens [first, first + count) of block b to `out`.
  void decode(const void* part, int32_t b, int32_t first, int32_t count, int64_t dim,
              std::vector<float>& out) const {
    const ops::KvCacheView& cache = args_.cache;
    const int64_t value_bytes = tensor::kv_value_bytes(cache.format);
    const auto* bytes = static_cast<const uint8_t*>(part);
    const int64_t block = unit_.item->blocks[static_cast<size_t>(b)] * cache.block_stride;
    const int64_t head = block + unit_.kv_head * cache.head_stride;
    const bool is_fp8 = cache.format == tensor::KvFormat::kFp8;
    std::array<float, kAttendTokensMax> scales;
    if (is_fp8) {
      const uint8_t* exponents = bytes + block + args_.desc.num_kv_heads * cache.head_stride +
                                 unit_.kv_head * args_.desc.block_size + first;
      std::transform(exponents, exponents + count, scales.begin(), tensor::kv_scale);
    }
    const tensor::WeightView tokens = {
        .format = is_fp8 ? tensor::WeightFormat::kFp8Block : tensor::WeightFormat::kBf16,
        .data = bytes + (head + first * cache.token_stride) * value_bytes,
        .rows = count,
        .cols = dim,
        .stride_bytes = cache.token_stride * value_bytes,
        .scales = scales.data(),
        .scale_stride = 1,
        .block_rows = 1,
        .block_cols = dim};
    out.resize(static_cast<size_t>(kAttendTokensMax * dim));
    for (int32_t t = 0; t < count; ++t) {
      simd_kernels().decode_row({&tokens, t, 0, dim, out.data() + t * dim});
    }
  }

  TokenValues decoded_values(int32_t b, int32_t first, int32_t count) const {
    const int64_t k_dim = args_.desc.k_dim;
    decode(args_.cache.k, b, first, count, k_dim, scratch_.k);
    const float* k = scratch_.k.data();
    if (args_.cache.is_latent()) return {k, k, k, k, k_dim, k_dim};
    const int64_t v_dim = args_.desc.v_dim;
    decode(args_.cache.v, b, first, count, v_dim, scratch_.v);
    return {k, scratch_.v.data(), k, scratch_.v.data(), k_dim, v_dim};
  }

  // Tokens [first, first + count) of block b of the item.
  void attend(int32_t b, int32_t first, int32_t count) {
    const AttentionItem& item = *unit_.item;
    const auto block_idx = static_cast<size_t>(b);
    const int64_t start = int64_t{item.block_idx[block_idx]} * args_.desc.block_size + first;
    bool any = false;
    for (int32_t i = 0; i < num_queries_; ++i) {
      const int64_t position = int64_t{item.first_position} + row_of(i);
      int64_t begin = 0;
      if (args_.desc.sliding_window > 0) {
        begin = std::clamp<int64_t>(position - args_.desc.sliding_window + 1 - start, 0, count);
      }
      const int64_t end = std::clamp<int64_t>(position + 1 - start, begin, count);
      scratch_.begin[static_cast<size_t>(i)] = static_cast<int32_t>(begin);
      scratch_.end[static_cast<size_t>(i)] = static_cast<int32_t>(end);
      any = any || end > begin;
    }
    if (!any) return;
    const TokenValues values = args_.cache.format == tensor::KvFormat::kF32
                                   ? cached_values(b, first, count)
                                   : decoded_values(b, first, count);
    simd_kernels().attend_tokens({.q = scratch_.q_rows.data(),
                                  .k = values.k,
                                  .v = values.v,
                                  .next_k = values.next_k,
                                  .next_v = values.next_v,
                                  .k_stride = values.k_stride,
                                  .v_stride = values.v_stride,
                                  .num_queries = num_queries_,
                                  .k_dim = args_.desc.k_dim,
                                  .v_dim = args_.desc.v_dim,
                                  .begin = scratch_.begin.data(),
                                  .end = scratch_.end.data(),
                                  .row_max = scratch_.row_max.data(),
                                  .row_sum = scratch_.row_sum.data(),
                                  .acc = scratch_.acc.data(),
                                  .scores = scratch_.scores.data()});
  }

  void write(tensor::Matrix out, tensor::Matrix lse) const {
    const int32_t v_dim = args_.desc.v_dim;
    for (int32_t i = 0; i < num_queries_; ++i) {
      const auto query = static_cast<size_t>(i);
      const int64_t row = unit_.item->row_begin + row_of(i);
      const float sum = scratch_.row_sum[query];
      const float* acc = scratch_.acc.data() + int64_t{i} * v_dim;
      float* values = out.row(row) + head_of(i) * v_dim;
      for (int32_t d = 0; d < v_dim; ++d) values[d] = sum == 0.0F ? 0.0F : acc[d] / sum;
      lse.row(row)[head_of(i)] =
          sum == 0.0F ? kNothingSeen : scratch_.row_max[query] + std::log(sum);
    }
  }

  const AttentionArgs& args_;
  const Unit& unit_;
  UnitScratch& scratch_;
  const int32_t num_queries_;
};

// Results of the block ranges after the first, [num_splits - 1] times the size of the result.
struct SplitResults {
  std::vector<tensor::MatrixBuffer> out, lse;

  void reset(size_t count, const AttentionArgs& args) {
    out.resize(count);
    lse.resize(count);
    for (size_t s = 0; s < count; ++s) {
      ops::clear_partials(out[s].resize(args.out.rows, args.out.cols),
                          lse[s].resize(args.lse.rows, args.lse.cols));
    }
  }

  void merge_into(const AttentionArgs& args) const {
    for (const AttentionItem& item : args.items) {
      for (int64_t row = item.row_begin; row < item.row_begin + item.num_rows; ++row) {
        for (size_t s = 0; s < out.size(); ++s) {
          ops::merge_partials(args.out.row_span(row), args.lse.row_span(row),
                              out[s].view().row_span(row), lse[s].view().row_span(row));
        }
      }
    }
  }
};

}  // namespace

void paged_attention(const ops::Context& context, const AttentionArgs& args) {
  const UnitList list(args, context.pool->num_threads());
  thread_local SplitResults splits;
  SplitResults& results = splits;  // the caller's, not the worker thread's
  results.reset(static_cast<size_t>(list.num_splits() - 1), args);
  const auto& units = list.units();
  context.pool->parallel_for(static_cast<int64_t>(units.size()), 1,
                             [&](int64_t begin, int64_t end) {
                               thread_local UnitScratch scratch;
                               for (int64_t u = begin; u < end; ++u) {
                                 const Unit& unit = units[static_cast<size_t>(u)];
                                 UnitRunner runner(args, unit, scratch);
                                 if (unit.split == 0) {
                                   runner.run(args.out, args.lse);
                                 } else {
                                   const auto s = static_cast<size_t>(unit.split - 1);
                                   runner.run(results.out[s].view(), results.lse[s].view());
                                 }
                               }
                             });
  results.merge_into(args);
}

}  // namespace nanocp::cpu
