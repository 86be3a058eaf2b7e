// The KV memory of one instance: num_blocks blocks of block_size tokens for every layer. A block
// holds its tokens head by head, so that one head's keys are adjacent. MLA stores one latent row
// per token, whose first part serves as V. Owned and used by the instance's thread.
#pragma once

#include <cstdint>
#include <vector>

#include "model/model_spec.h"
#include "ops/attention.h"
#include "tensor/host_buffer.h"
#include "tensor/kv_format.h"

namespace nanocp::model {

class KvCache {
 public:
  struct Shape {
    int32_t num_layers = 0;
    int32_t block_size = 0;  // tokens
    int64_t num_blocks = 0;
    tensor::KvFormat format = tensor::KvFormat::kF32;
  };
  KvCache(const AttentionSpec& spec, const Shape& shape);

  ops::KvCacheView layer(int32_t layer) const;

 private:
  const bool latent_;
  const tensor::KvFormat format_;
  const int64_t num_blocks_;
  const int64_t block_stride_;  // values of K (or V) per block
  const int64_t head_stride_;
  const int64_t token_stride_;
  std::vector<tensor::HostBuffer> k_;  // [num_layers]
  std::vector<tensor::HostBuffer> v_;  // [num_layers], empty for MLA
};

}  // namespace nanocp::model
