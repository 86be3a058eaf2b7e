#include "ops/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.h"

namespace nanocp::ops {
namespace {

using tensor::KvFormat;
using tensor::Matrix;

struct Case {
  int heads, kv_heads, k_dim, v_dim, block_size, window;
  bool latent;
};
constexpr Case kCases[] = {
    {8, 2, 16, 16, 16, 0, false},  {4, 4, 64, 64, 16, 0, false},    {16, 2, 128, 128, 16, 0, false},
    {8, 2, 16, 16, 16, 24, false}, {8, 1, 40, 32, 16, 0, true},     {16, 1, 576, 512, 16, 0, true},
    {6, 3, 20, 20, 7, 5, false},   {8, 8, 32, 32, 128, 100, false}, {140, 1, 24, 16, 4, 0, true},
};

// A cache full of random numbers and a sequence whose blocks lie anywhere in it.
struct Fixture {
  explicit Fixture(const Case& c, uint64_t seed, KvFormat format = KvFormat::kF32) : random(seed) {
    desc = {.num_heads = c.heads,
            .num_kv_heads = c.kv_heads,
            .k_dim = c.k_dim,
            .v_dim = c.v_dim,
            .block_size = c.block_size,
            .sliding_window = c.window,
            .softmax_scale = 1.0F / std::sqrt(static_cast<float>(c.k_dim))};
    const int64_t per_block = c.kv_heads * c.block_size * tensor::kv_token_values(format, c.k_dim);
    const int64_t part_bytes = kBlocks * per_block * tensor::kv_value_bytes(format);
    memory.resize(static_cast<size_t>(2 * part_bytes));
    cache = {.k = memory.data(),
             .v = c.latent ? memory.data() : memory.data() + part_bytes,
             .block_stride = per_block,
             .head_stride = int64_t{c.block_size} * c.k_dim,
             .token_stride = c.k_dim,
             .num_blocks = kBlocks,
             .format = format};
    for (int64_t slot = 0; slot < kBlocks * c.block_size; ++slot) {
      append_kv(desc, cache, random_kv(c), slot);
    }
    for (BlockId b = 0; b < kBlocks; ++b) blocks.push_back(b);
    for (size_t i = blocks.size() - 1; i > 0; --i)
      std::swap(blocks[i], blocks[random.below(i + 1)]);
    for (int32_t i = 0; i < kBlocks; ++i) block_idx.push_back(i);
  }

  std::vector<float> random_kv(const Case& c) {
    std::vector<float> kv(static_cast<size_t>(c.latent ? c.k_dim : 2 * c.kv_heads * c.k_dim));
    for (float& value : kv) value = static_cast<float>(random.uniform() * 2 - 1);
    return kv;
  }

  AttentionItem item(int32_t rows, int32_t first_position) {
    return {.source = 0,
            .row_begin = 0,
            .num_rows = rows,
            .first_position = first_position,
            .sequence = 1,
            .blocks = blocks,
            .block_idx = block_idx};
  }

  static constexpr int kBlocks = 48;
  Random random;
  AttentionDesc desc;
  KvCacheView cache;
  std::vector<uint8_t> memory;
  std::vector<BlockId> blocks;
  std::vector<int32_t> block_idx;
};

struct Partials {
  Partials(int64_t rows, const AttentionDesc& desc)
      : out(out_buffer.resize(rows, int64_t{desc.num_heads} * desc.v_dim)),
        lse(lse_buffer.resize(rows, desc.num_heads)) {
    clear_partials(out, lse);
  }
  tensor::MatrixBuffer out_buffer, lse_buffer;
  Matrix out, lse;
};

Matrix random_queries(tensor::MatrixBuffer& buffer, int64_t rows, int64_t cols, Random& random) {
  const Matrix q = buffer.resize(rows, cols);
  for (int64_t i = 0; i < rows * cols; ++i)
    q.data[i] = static_cast<float>(random.uniform() * 4 - 2);
  return q;
}

void expect_equal(const Partials& got, const Partials& want, const std::string& what) {
  for (int64_t r = 0; r < want.out.rows; ++r) {
    for (int64_t c = 0; c < want.out.cols; ++c) {
      ASSERT_NEAR(got.out.row(r)[c], want.out.row(r)[c], 3e-6F) << what << " row " << r;
    }
    for (int64_t h = 0; h < want.lse.cols; ++h) {
      if (std::isinf(want.lse.row(r)[h])) {
        ASSERT_EQ(got.lse.row(r)[h], want.lse.row(r)[h]) << what;
      } else {
        ASSERT_NEAR(got.lse.row(r)[h], want.lse.row(r)[h], 1e-5F) << what;
      }
    }
  }
}

class PagedAttention : public testing::TestWithParam<KvFormat> {};

INSTANTIATE_TEST_SUITE_P(Formats, PagedAttention,
                         testing::Values(KvFormat::kF32, KvFormat::kBf16, KvFormat::kFp8),
                         [](const auto& param) { return tensor::to_string(param.param); });

TEST_P(PagedAttention, EqualsReference) {
  for (int num_threads : {1, 4}) {
    if (NANOCP_TEST_SCALE < 1.0 && num_threads == 1) continue;
    ThreadPool pool(num_threads);
    for (const Case& c : kCases) {
      for (int32_t rows : {1, 3, 40}) {
        Fixture f(c, 21, GetParam());
        const int32_t max_first = Fixture::kBlocks * c.block_size - rows;
        const std::vector<AttentionItem> items = {
            f.item(rows, static_cast<int32_t>(f.random.between(0, max_first)))};
        tensor::MatrixBuffer buffer;
        const Matrix q = random_queries(buffer, rows, int64_t{c.heads} * c.k_dim, f.random);
        Partials got(rows, f.desc), want(rows, f.desc);
        paged_attention({&pool}, {f.desc, f.cache, items, q, got.out, got.lse});
        paged_attention_reference({f.desc, f.cache, items, q, want.out, want.lse});
        expect_equal(got, want, "heads " + std::to_string(c.heads));
      }
    }
  }
}

// Any cut of the blocks into shards gives the whole after the merge, empty shards included.
TEST_P(PagedAttention, MergesShardsToTheWhole) {
  ThreadPool pool(2);
  for (const Case& c : kCases) {
    Fixture f(c, 22, GetParam());
    const int32_t rows = 5;
    const auto item = f.item(rows, static_cast<int32_t>(f.random.between(60, 100)));
    tensor::MatrixBuffer buffer;
    const Matrix q = random_queries(buffer, rows, int64_t{c.heads} * c.k_dim, f.random);
    Partials whole(rows, f.desc), merged(rows, f.desc);
    paged_attention({&pool}, {f.desc, f.cache, std::span(&item, 1), q, whole.out, whole.lse});
    std::vector<std::vector<BlockId>> blocks(4);  // shard 3 stays empty
    std::vector<std::vector<int32_t>> block_idx(4);
    for (size_t i = 0; i < f.blocks.size(); ++i) {
      const uint64_t shard = f.random.below(3);
      blocks[shard].push_back(f.blocks[i]);
      block_idx[shard].push_back(f.block_idx[i]);
    }
    for (size_t shard = 0; shard < blocks.size(); ++shard) {
      AttentionItem part = item;
      part.blocks = blocks[shard];
      part.block_idx = block_idx[shard];
      Partials partial(rows, f.desc);
      paged_attention({&pool}, {f.desc, f.cache, std::span(&part, 1), q, partial.out, partial.lse});
      for (int64_t r = 0; r < rows; ++r) {
        merge_partials(merged.out.row_span(r), merged.lse.row_span(r), partial.out.row_span(r),
                       partial.lse.row_span(r));
      }
    }
    expect_equal(merged, whole, "merged");
  }
}

TEST_P(PagedAttention, RowThatSeesNothingIsNeutral) {
  ThreadPool pool(1);
  Fixture f(kCases[0], 23, GetParam());
  AttentionItem item = f.item(1, 3);
  item.blocks = item.blocks.subspan(1);  // positions from 16 on only
  item.block_idx = item.block_idx.subspan(1);
  tensor::MatrixBuffer buffer;
  const Matrix q = random_queries(buffer, 1, 8 * 16, f.random);
  Partials got(1, f.desc);
  std::fill_n(got.out.data, got.out.cols, 9.0F);
  paged_attention({&pool}, {f.desc, f.cache, std::span(&item, 1), q, got.out, got.lse});
  for (int64_t c = 0; c < got.out.cols; ++c) EXPECT_EQ(got.out.row(0)[c], 0.0F);
  for (int64_t h = 0; h < 8; ++h) EXPECT_EQ(got.lse.row(0)[h], -INFINITY);
  Partials both(1, f.desc);
  merge_partials(both.out.row_span(0), both.lse.row_span(0), got.out.row_span(0),
                 got.lse.row_span(0));
  for (int64_t c = 0; c < got.out.cols; ++c) EXPECT_EQ(both.out.row(0)[c], 0.0F);
}

TEST(ApplySinks, EqualsAnExtraTokenWithoutValue) {
  Partials p(1, {.num_heads = 2, .num_kv_heads = 1, .k_dim = 4, .v_dim = 2});
  const float out[4] = {1.0F, 2.0F, 3.0F, 4.0F};
  std::copy_n(out, 4, p.out.data);
  p.lse.data[0] = std::log(3.0F);
  p.lse.data[1] = -INFINITY;
  const std::vector<float> sinks = {std::log(1.0F), 5.0F};
  apply_sinks(p.out, p.lse, sinks);
  EXPECT_NEAR(p.out.data[0], 0.75F, 1e-6F);
  EXPECT_NEAR(p.out.data[1], 1.5F, 1e-6F);
  EXPECT_EQ(p.out.data[2], 0.0F);
}

TEST(AppendKv, WritesWhereAttentionReads) {
  for (const Case& c : kCases) {
    Fixture f(c, 24);
    const int64_t values = c.latent ? c.k_dim : int64_t{c.kv_heads} * (c.k_dim + c.v_dim);
    std::vector<float> kv(static_cast<size_t>(values));
    for (size_t i = 0; i < kv.size(); ++i) kv[i] = static_cast<float>(i);
    const int64_t slot = 5 * c.block_size + c.block_size - 1;
    append_kv(f.desc, f.cache, kv, slot);
    for (int h = 0; h < c.kv_heads; ++h) {
      const int64_t at = 5 * f.cache.block_stride + h * f.cache.head_stride +
                         (c.block_size - 1) * f.cache.token_stride;
      EXPECT_EQ(static_cast<const float*>(f.cache.k)[at + 1], static_cast<float>(h * c.k_dim + 1));
      const int v_first = c.latent ? 0 : c.kv_heads * c.k_dim + h * c.v_dim;
      EXPECT_EQ(static_cast<const float*>(f.cache.v)[at + 1], static_cast<float>(v_first + 1));
    }
  }
}

// Whatever else lies in the block, and however large the values of other heads are.
TEST(AppendKv, Fp8KeepsTheRelativeErrorOfThreeBits) {
  for (const Case& c : kCases) {
    Fixture f(c, 25, KvFormat::kFp8);
    std::vector<float> kv = f.random_kv(c);
    const size_t head_values = static_cast<size_t>(c.k_dim);
    for (size_t i = 0; i < kv.size(); ++i) {
      kv[i] *= std::ldexp(1.0F, 5 * (static_cast<int>(i / head_values) % 7) - 15);
    }
    const int32_t offset = c.block_size / 2;
    append_kv(f.desc, f.cache, kv, 5 * c.block_size + offset);
    for (size_t i = 0; i < kv.size(); ++i) {
      const auto head = static_cast<int64_t>(i / head_values);
      const bool is_v = head >= c.kv_heads;
      const auto* block =
          static_cast<const uint8_t*>(is_v ? f.cache.v : f.cache.k) + 5 * f.cache.block_stride;
      const uint8_t code =
          block[head % c.kv_heads * f.cache.head_stride + offset * f.cache.token_stride +
                static_cast<int64_t>(i % head_values)];
      const uint8_t exponent =
          block[c.kv_heads * f.cache.head_stride + head % c.kv_heads * c.block_size + offset];
      const float value = tensor::decode_e4m3(code) * tensor::kv_scale(exponent);
      const float largest = tensor::kE4m3Max * tensor::kv_scale(exponent);
      ASSERT_NEAR(value, kv[i], std::max(std::abs(kv[i]) / 16, largest * 0x1p-18F)) << i;
    }
  }
}

}  // namespace
}  // namespace nanocp::ops
