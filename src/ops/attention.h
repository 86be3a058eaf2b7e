// Attention over KV blocks, and the merge of partial results by log-sum-exp. Latent attention (MLA)
// is the case of one KV head whose V is the first part of its K.
#pragma once

#include <cstdint>
#include <span>

#include "ops/context.h"
#include "plan/instance_plan.h"
#include "tensor/kv_format.h"
#include "tensor/matrix.h"

namespace nanocp::ops {

struct AttentionDesc {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;  // divides num_heads
  int32_t k_dim = 0;
  int32_t v_dim = 0;
  int32_t block_size = 0;      // tokens
  int32_t sliding_window = 0;  // tokens seen, the own one included; 0: all
  float softmax_scale = 1.0F;
};

// One layer of one instance's cache. A token's K of head h is at
// block * block_stride + h * head_stride + offset_in_block * token_stride from k, and its V at the
// same distance from v. GQA keeps K and V apart; MLA points v at k. kFp8: its exponent is at
// block * block_stride + num_kv_heads * head_stride + h * block_size + offset_in_block.
struct KvCacheView {
  void* k = nullptr;
  void* v = nullptr;
  int64_t block_stride = 0;  // in values of the format
  int64_t head_stride = 0;
  int64_t token_stride = 0;  // >= k_dim and v_dim
  int64_t num_blocks = 0;
  tensor::KvFormat format = tensor::KvFormat::kF32;

  bool is_latent() const { return k == v; }
};

// Partial attention of every item's rows over the item's blocks. The rows of `items` must not
// overlap; rows that no item names are left as they are.
// q [rows, num_heads * k_dim], out [rows, num_heads * v_dim], lse [rows, num_heads].
// lse is the natural logarithm of the sum of exponentials; a row that sees nothing gets out = 0 and
// lse = -infinity.
struct AttentionArgs {
  AttentionDesc desc;
  KvCacheView cache;
  std::span<const AttentionItem> items;
  tensor::ConstMatrix q;
  tensor::Matrix out;
  tensor::Matrix lse;
};
void paged_attention(const Context& context, const AttentionArgs& args);
void paged_attention_reference(const AttentionArgs& args);

// Neutral partials: out = 0, lse = -infinity.
void clear_partials(tensor::Matrix out, tensor::Matrix lse);

// out, lse := the attention over both parts. Absent parts (lse = -infinity) are neutral.
// out, other_out [num_heads * v_dim], lse, other_lse [num_heads]: one row.
void merge_partials(std::span<float> out, std::span<float> lse, std::span<const float> other_out,
                    std::span<const float> other_lse);

// Adds one logit per head to the softmax denominator, once per row after the merge (gpt-oss).
void apply_sinks(tensor::Matrix out, tensor::ConstMatrix lse, std::span<const float> sinks);

// Writes one token's K and V (adjacent: [num_kv_heads * k_dim | num_kv_heads * v_dim], or k_dim
// values for MLA) into a slot, block * block_size + offset.
void append_kv(const AttentionDesc& desc, const KvCacheView& cache, std::span<const float> kv,
               int64_t slot);

}  // namespace nanocp::ops
