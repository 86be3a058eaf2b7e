#include "model/memory_estimate.h"

#include <algorithm>

#include "base/check.h"
#include "model/weight_catalogue.h"

namespace nanocp::model {

ParameterCount count_parameters(const ModelSpec& spec) {
  ParameterCount count;
  int64_t routed = 0;
  int64_t embedding = 0;
  for (const CatalogueEntry& entry : list_tensors(spec)) {
    count.total += entry.num_parameters;
    if (entry.routed) routed += entry.num_parameters;
    if (entry.kind == TensorKind::kEmbedding) embedding += entry.num_parameters;
  }
  // A tied table is the output projection too, and multiplied as such.
  if (spec.tie_word_embeddings) embedding = 0;
  const int64_t idle_experts = spec.moe.num_experts - spec.moe.router.topk;
  count.active = count.total - embedding - routed / spec.moe.num_experts * idle_experts;
  return count;
}

WeightBytes count_weight_bytes(const ModelSpec& spec) {
  WeightBytes bytes{.num_experts = spec.moe.num_experts};
  for (const CatalogueEntry& entry : list_tensors(spec)) {
    (entry.routed ? bytes.experts : bytes.replicated) += entry.size_bytes;
  }
  return bytes;
}

int64_t WeightBytes::per_instance(int32_t num_instances) const {
  NANOCP_CHECK_GE(num_instances, 1);
  const int64_t most_experts = (int64_t{num_experts} + num_instances - 1) / num_instances;
  return replicated + experts / num_experts * most_experts;
}

int64_t kv_bytes_per_token(const ModelSpec& spec, tensor::KvFormat format) {
  const AttentionSpec& attention = spec.attention;
  const int64_t token_bytes = tensor::kv_token_bytes(format, attention.cache_k_dim());
  const int64_t num_parts = attention.is_mla() ? 1 : 2;  // K and V
  return num_parts * attention.cache_num_kv_heads() * token_bytes * spec.num_layers;
}

int64_t kv_tokens_per_instance(const ModelSpec& spec, int32_t num_instances,
                               const InstanceMemory& memory) {
  const auto usable =
      static_cast<int64_t>(static_cast<double>(memory.size_bytes) * memory.usable_fraction);
  const int64_t free = usable - count_weight_bytes(spec).per_instance(num_instances);
  if (free <= 0) return 0;
  const int64_t token_bytes = kv_bytes_per_token(spec, memory.kv_format);
  return free / (token_bytes * memory.block_tokens) * memory.block_tokens;
}

int64_t longest_request_tokens(const ModelSpec& spec, RequestShape shape,
                               const InstanceMemory& memory) {
  NANOCP_CHECK(shape.degree >= 1 && shape.degree <= shape.num_instances);
  const int64_t tokens = kv_tokens_per_instance(spec, shape.num_instances, memory);
  return std::min(spec.max_position, tokens * shape.degree);
}

}  // namespace nanocp::model
