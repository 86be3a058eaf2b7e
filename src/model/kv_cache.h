// The KV memory of one instance: num_blocks blocks of block_size tokens for every layer, float32.
// A block holds its tokens head by head, so that one head's keys are adjacent. MLA stores one
// latent row per token, whose first part serves as V. Owned and used by the instance's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"
#include "ops/attention.h"
#include "tensor/host_buffer.h"

namespace nanocp::model {

class KvCache {
 public:
  KvCache(const AttentionSpec& spec, int32_t num_layers, int32_t block_size, int64_t num_blocks);

  ops::KvCacheView layer(int32_t layer) const;

  // Bytes of one token in all layers.
  static int64_t bytes_per_token(const AttentionSpec& spec, int32_t num_layers) {
    return spec.cache_values_per_token() * num_layers * static_cast<int64_t>(sizeof(float));
  }

 private:
  const bool latent_;
  const int64_t num_blocks_;
  const int64_t block_stride_;  // floats of K (or V) per block
  const int64_t head_stride_;
  const int64_t token_stride_;
  std::vector<tensor::HostBuffer> k_;  // [num_layers]
  std::vector<tensor::HostBuffer> v_;  // [num_layers], empty for MLA
};

}  // namespace nanocp::model
