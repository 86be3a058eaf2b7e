#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "ops/cpu_backend.h"

namespace nanocp::ops {

using tensor::KvFormat;

namespace {

constexpr float kNothingSeen = -std::numeric_limits<float>::infinity();

void check_item(const AttentionArgs& args, const AttentionItem& item) {
  NANOCP_CHECK(item.row_begin >= 0 && item.row_begin + item.num_rows <= args.q.rows);
  NANOCP_CHECK_EQ(item.blocks.size(), item.block_idx.size());
  for (const BlockId block : item.blocks) {
    NANOCP_DCHECK(block >= 0 && block < args.cache.num_blocks);
    static_cast<void>(block);
  }
}

// Where a token of a KV head is, in values from k or v.
struct TokenRef {
  int64_t values;
  int64_t exponent;  // kFp8
};

TokenRef token_at(const AttentionDesc& desc, const KvCacheView& cache, int64_t block,
                  int64_t offset, int64_t kv_head) {
  const int64_t base = block * cache.block_stride;
  return {base + kv_head * cache.head_stride + offset * cache.token_stride,
          base + desc.num_kv_heads * cache.head_stride + kv_head * desc.block_size + offset};
}

// One element: the definition of each format.
float cache_element(const KvCacheView& cache, const void* part, const TokenRef& token, int64_t d) {
  switch (cache.format) {
    case KvFormat::kF32:
      return static_cast<const float*>(part)[token.values + d];
    case KvFormat::kBf16:
      return tensor::decode_bf16(static_cast<const uint16_t*>(part)[token.values + d]);
    case KvFormat::kFp8:
      break;
  }
  const auto* bytes = static_cast<const uint8_t*>(part);
  return tensor::decode_e4m3(bytes[token.values + d]) * tensor::kv_scale(bytes[token.exponent]);
}

void store_token(const KvCacheView& cache, void* part, const TokenRef& token,
                 std::span<const float> from) {
  switch (cache.format) {
    case KvFormat::kF32:
      std::copy(from.begin(), from.end(), static_cast<float*>(part) + token.values);
      return;
    case KvFormat::kBf16:
      std::transform(from.begin(), from.end(), static_cast<uint16_t*>(part) + token.values,
                     tensor::encode_bf16);
      return;
    case KvFormat::kFp8:
      break;
  }
  float largest = 0.0F;
  for (const float value : from) largest = std::max(largest, std::abs(value));
  auto* bytes = static_cast<uint8_t*>(part);
  const uint8_t exponent = tensor::kv_exponent(largest);
  const float inverse = 1.0F / tensor::kv_scale(exponent);
  for (size_t d = 0; d < from.size(); ++d) {
    bytes[token.values + static_cast<int64_t>(d)] = tensor::encode_e4m3(from[d] * inverse);
  }
  bytes[token.exponent] = exponent;
}

// All tokens of the item's blocks that a row at `position` sees.
std::vector<TokenRef> seen_tokens(const AttentionArgs& args, const AttentionItem& item,
                                  int64_t position, int64_t kv_head) {
  std::vector<TokenRef> tokens;
  for (size_t b = 0; b < item.blocks.size(); ++b) {
    for (int64_t offset = 0; offset < args.desc.block_size; ++offset) {
      const int64_t at = int64_t{item.block_idx[b]} * args.desc.block_size + offset;
      const bool in_window =
          args.desc.sliding_window == 0 || at > position - args.desc.sliding_window;
      if (at <= position && in_window) {
        tokens.push_back(token_at(args.desc, args.cache, item.blocks[b], offset, kv_head));
      }
    }
  }
  return tokens;
}

void attend_head_reference(const AttentionArgs& args, const AttentionItem& item, int32_t i,
                           int32_t head) {
  const AttentionDesc& desc = args.desc;
  const int64_t row = item.row_begin + i;
  const float* q = args.q.row(row) + int64_t{head} * desc.k_dim;
  float* out = args.out.row(row) + int64_t{head} * desc.v_dim;
  const int32_t kv_head = head / (desc.num_heads / desc.num_kv_heads);
  const auto tokens = seen_tokens(args, item, int64_t{item.first_position} + i, kv_head);
  std::vector<double> scores;
  double largest = -std::numeric_limits<double>::infinity();
  for (const TokenRef& token : tokens) {
    double dot = 0.0;
    for (int32_t d = 0; d < desc.k_dim; ++d) {
      dot += static_cast<double>(q[d]) * cache_element(args.cache, args.cache.k, token, d);
    }
    scores.push_back(dot * static_cast<double>(desc.softmax_scale));
    largest = std::max(largest, scores.back());
  }
  double sum = 0.0;
  std::vector<double> values(static_cast<size_t>(desc.v_dim), 0.0);
  for (size_t t = 0; t < tokens.size(); ++t) {
    const double weight = std::exp(scores[t] - largest);
    sum += weight;
    for (int32_t d = 0; d < desc.v_dim; ++d) {
      values[static_cast<size_t>(d)] +=
          weight * cache_element(args.cache, args.cache.v, tokens[t], d);
    }
  }
  for (int32_t d = 0; d < desc.v_dim; ++d) {
    out[d] = sum == 0.0 ? 0.0F : static_cast<float>(values[static_cast<size_t>(d)] / sum);
  }
  args.lse.row(row)[head] = sum == 0.0 ? kNothingSeen : static_cast<float>(largest + std::log(sum));
}

}  // namespace

void paged_attention(const Context& context, const AttentionArgs& args) {
  NANOCP_CHECK_EQ(args.q.cols, int64_t{args.desc.num_heads} * args.desc.k_dim);
  NANOCP_CHECK_EQ(args.out.cols, int64_t{args.desc.num_heads} * args.desc.v_dim);
  NANOCP_CHECK_EQ(args.lse.cols, args.desc.num_heads);
  NANOCP_CHECK_EQ(args.desc.num_heads % args.desc.num_kv_heads, 0);
  for (const AttentionItem& item : args.items) check_item(args, item);
  if (!args.items.empty()) cpu::paged_attention(context, args);
}

void paged_attention_reference(const AttentionArgs& args) {
  for (const AttentionItem& item : args.items) {
    check_item(args, item);
    for (int32_t i = 0; i < item.num_rows; ++i) {
      for (int32_t head = 0; head < args.desc.num_heads; ++head) {
        attend_head_reference(args, item, i, head);
      }
    }
  }
}

void clear_partials(tensor::Matrix out, tensor::Matrix lse) {
  for (int64_t r = 0; r < out.rows; ++r) std::fill_n(out.row(r), out.cols, 0.0F);
  for (int64_t r = 0; r < lse.rows; ++r) std::fill_n(lse.row(r), lse.cols, kNothingSeen);
}

void merge_partials(std::span<float> out, std::span<float> lse, std::span<const float> other_out,
                    std::span<const float> other_lse) {
  NANOCP_CHECK_EQ(out.size(), other_out.size());
  NANOCP_CHECK_EQ(lse.size(), other_lse.size());
  const size_t v_dim = out.size() / lse.size();
  for (size_t h = 0; h < lse.size(); ++h) {
    if (other_lse[h] == kNothingSeen) continue;
    const float largest = std::max(lse[h], other_lse[h]);
    const float weight = std::exp(lse[h] - largest);
    const float other_weight = std::exp(other_lse[h] - largest);
    const float sum = weight + other_weight;
    float* mine = out.data() + h * v_dim;
    const float* other = other_out.data() + h * v_dim;
    for (size_t d = 0; d < v_dim; ++d) {
      mine[d] = (mine[d] * weight + other[d] * other_weight) / sum;
    }
    lse[h] = largest + std::log(sum);
  }
}

void apply_sinks(tensor::Matrix out, tensor::ConstMatrix lse, std::span<const float> sinks) {
  NANOCP_CHECK_EQ(lse.cols, static_cast<int64_t>(sinks.size()));
  const int64_t v_dim = out.cols / lse.cols;
  for (int64_t r = 0; r < out.rows; ++r) {
    for (int64_t h = 0; h < lse.cols; ++h) {
      // exp(lse) / (exp(lse) + exp(sink)); lse = -infinity gives 0.
      const float scale = 1.0F / (1.0F + std::exp(sinks[static_cast<size_t>(h)] - lse.row(r)[h]));
      float* head = out.row(r) + h * v_dim;
      for (int64_t d = 0; d < v_dim; ++d) head[d] *= scale;
    }
  }
}

void append_kv(const AttentionDesc& desc, const KvCacheView& cache, std::span<const float> kv,
               int64_t slot) {
  const int64_t block = slot / desc.block_size;
  const int64_t offset = slot % desc.block_size;
  NANOCP_CHECK(slot >= 0 && block < cache.num_blocks);
  const bool latent = cache.is_latent();
  const int64_t k_values = int64_t{desc.num_kv_heads} * desc.k_dim;
  const int64_t v_values = latent ? 0 : int64_t{desc.num_kv_heads} * desc.v_dim;
  NANOCP_CHECK_EQ(static_cast<int64_t>(kv.size()), k_values + v_values);
  for (int64_t h = 0; h < desc.num_kv_heads; ++h) {
    const TokenRef token = token_at(desc, cache, block, offset, h);
    const auto head = static_cast<size_t>(h);
    const auto k_dim = static_cast<size_t>(desc.k_dim);
    const auto v_dim = static_cast<size_t>(desc.v_dim);
    store_token(cache, cache.k, token, kv.subspan(head * k_dim, k_dim));
    if (latent) continue;
    store_token(cache, cache.v, token,
                kv.subspan(static_cast<size_t>(k_values) + head * v_dim, v_dim));
  }
}

}  // namespace nanocp::ops
