// What a model needs, from its spec alone: parameters, weight bytes of an instance when attention
// and dense layers are replicated and experts are shared out, KV bytes, and the longest request.
// Pure functions, any thread. Weights are counted in the formats a checkpoint stores.
#pragma once

#include <cstdint>

#include "model/model_spec.h"
#include "tensor/kv_format.h"

namespace nanocp::model {

struct ParameterCount {
  int64_t total = 0;
  // Multiplied for each token: all but the embedding table and the experts not chosen.
  int64_t active = 0;
};
ParameterCount count_parameters(const ModelSpec& spec);

struct WeightBytes {
  int64_t replicated = 0;  // on every instance
  int64_t experts = 0;     // all routed experts of all layers
  int32_t num_experts = 0;

  int64_t total() const { return replicated + experts; }
  // Of the instance with the most experts. Requires: num_instances >= 1.
  int64_t per_instance(int32_t num_instances) const;
};
WeightBytes count_weight_bytes(const ModelSpec& spec);

// Over all layers; exponents of fp8 included.
int64_t kv_bytes_per_token(const ModelSpec& spec,
                           tensor::KvFormat format = tensor::KvFormat::kBf16);

struct InstanceMemory {
  int64_t size_bytes = 0;
  double usable_fraction = 0.9;  // the rest is for activations and buffers
  int64_t block_tokens = 16;
  tensor::KvFormat kv_format = tensor::KvFormat::kBf16;
};

// KV tokens that fit on an instance beside its weights, in whole blocks; 0 if the weights do not.
int64_t kv_tokens_per_instance(const ModelSpec& spec, int32_t num_instances,
                               const InstanceMemory& memory);

// Tokens of the longest request whose KV cache is on `degree` empty instances of num_instances,
// and which the model's positions allow. Requires: 1 <= degree <= num_instances.
struct RequestShape {
  int32_t num_instances = 1;
  int32_t degree = 1;
};
int64_t longest_request_tokens(const ModelSpec& spec, RequestShape shape,
                               const InstanceMemory& memory);

}  // namespace nanocp::model
