#include "model/kv_cache.h"

namespace nanocp::model {

KvCache::KvCache(const AttentionSpec& spec, int32_t num_layers, int32_t block_size,
                 int64_t num_blocks)
    : latent_(spec.kind == AttentionKind::kMla),
      num_blocks_(num_blocks),
      block_stride_(int64_t{spec.cache_num_kv_heads()} * block_size * spec.cache_k_dim()),
      head_stride_(int64_t{block_size} * spec.cache_k_dim()),
      token_stride_(spec.cache_k_dim()) {
  const auto values = static_cast<size_t>(num_blocks_ * block_stride_);
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    k_.emplace_back(new float[values]);
    v_.emplace_back(latent_ ? nullptr : new float[values]);
  }
}

ops::KvCacheView KvCache::layer(int32_t layer) const {
  float* k = k_[static_cast<size_t>(layer)].get();
  return {.k = k,
          .v = latent_ ? k : v_[static_cast<size_t>(layer)].get(),
          .block_stride = block_stride_,
          .head_stride = head_stride_,
          .k_token_stride = token_stride_,
          .v_token_stride = token_stride_,
          .num_blocks = num_blocks_};
}

}  // namespace nanocp::model
