#include "model/kv_cache.h"

namespace nanocp::model {

KvCache::KvCache(const AttentionSpec& spec, int32_t num_layers, int32_t block_size,
                 int64_t num_blocks)
    : latent_(spec.kind == AttentionKind::kMla),
      num_blocks_(num_blocks),
      block_stride_(int64_t{spec.cache_num_kv_heads()} * block_size * spec.cache_k_dim()),
      head_stride_(int64_t{block_size} * spec.cache_k_dim()),
      token_stride_(spec.cache_k_dim()) {
  const auto size_bytes = static_cast<size_t>(num_blocks_ * block_stride_) * sizeof(float);
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    k_.emplace_back(size_bytes);
    v_.emplace_back(latent_ ? 0 : size_bytes);
  }
}

ops::KvCacheView KvCache::layer(int32_t layer) const {
  auto* k = static_cast<float*>(k_[static_cast<size_t>(layer)].data());
  return {.k = k,
          .v = latent_ ? k : static_cast<float*>(v_[static_cast<size_t>(layer)].data()),
          .block_stride = block_stride_,
          .head_stride = head_stride_,
          .token_stride = token_stride_,
          .num_blocks = num_blocks_};
}

}  // namespace nanocp::model
