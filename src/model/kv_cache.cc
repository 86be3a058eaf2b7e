#include "model/kv_cache.h"

namespace nanocp::model {

KvCache::KvCache(const AttentionSpec& spec, const Shape& shape)
    : latent_(spec.kind == AttentionKind::kMla),
      format_(shape.format),
      num_blocks_(shape.num_blocks),
      block_stride_(spec.cache_num_kv_heads() * shape.block_size *
                    tensor::kv_token_values(shape.format, spec.cache_k_dim())),
      head_stride_(int64_t{shape.block_size} * spec.cache_k_dim()),
      token_stride_(spec.cache_k_dim()) {
  const auto size_bytes =
      static_cast<size_t>(num_blocks_ * block_stride_ * tensor::kv_value_bytes(format_));
  for (int32_t layer = 0; layer < shape.num_layers; ++layer) {
    k_.emplace_back(size_bytes);
    v_.emplace_back(latent_ ? 0 : size_bytes);
  }
}

ops::KvCacheView KvCache::layer(int32_t layer) const {
  void* k = k_[static_cast<size_t>(layer)].data();
  return {.k = k,
          .v = latent_ ? k : v_[static_cast<size_t>(layer)].data(),
          .block_stride = block_stride_,
          .head_stride = head_stride_,
          .token_stride = token_stride_,
          .num_blocks = num_blocks_,
          .format = format_};
}

}  // namespace nanocp::model
