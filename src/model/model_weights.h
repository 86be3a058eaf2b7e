// All weights of a model as views, ready for the forward pass. Views point into mapped files or
// into `owned`. Immutable after loading, so that all CPU instances of a process share one copy.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "tensor/weight.h"

namespace nanocp::model {

struct LinearWeights {
  tensor::WeightView weight;
  std::vector<float> bias;  // [rows], empty if none
};

struct GatedMlpWeights {
  LinearWeights gate;  // [intermediate, hidden]
  LinearWeights up;    // [intermediate, hidden]
  LinearWeights down;  // [hidden, intermediate]
};

struct GqaWeights {
  LinearWeights q, k, v, o;
  std::vector<float> q_norm, k_norm;  // [head_dim], empty without qk_norm
  std::vector<float> sinks;           // [num_heads], empty without sinks
};

struct MlaWeights {
  LinearWeights q_a;             // [q_lora_rank, hidden]; empty view without q_lora
  std::vector<float> q_a_norm;   // [q_lora_rank]
  LinearWeights q_b;             // [heads * (nope + rope), q_lora_rank or hidden]
  LinearWeights kv_a;            // [kv_lora_rank + rope, hidden]
  std::vector<float> kv_a_norm;  // [kv_lora_rank]
  // Per head h: absorbed query = k_up[h] x q_nope, value = v_up[h] x latent output.
  std::vector<tensor::WeightView> k_up;  // [heads] of [kv_lora_rank, nope], transposed at load
  std::vector<tensor::WeightView> v_up;  // [heads] of [v_head_dim, kv_lora_rank]
  LinearWeights o;                       // [hidden, heads * v_head_dim]
};

struct LayerWeights {
  std::vector<float> input_norm;           // [hidden]
  std::vector<float> post_attention_norm;  // [hidden]
  GqaWeights gqa;                          // by AttentionSpec::kind
  MlaWeights mla;
  GatedMlpWeights dense;                 // layers without experts
  LinearWeights router;                  // [num_experts, hidden]
  std::vector<float> correction_bias;    // [num_experts], empty if none
  std::vector<GatedMlpWeights> experts;  // [num_experts]
  GatedMlpWeights shared;                // shared experts as one MLP; empty views if none
};

struct ModelWeights {
  tensor::WeightView embedding;      // [vocab, hidden]
  std::vector<LayerWeights> layers;  // [num_layers]
  std::vector<float> final_norm;     // [hidden]
  LinearWeights lm_head;             // [vocab, hidden]
  // Keeps mapped files and converted buffers alive.
  std::vector<std::shared_ptr<const void>> owned;
};

}  // namespace nanocp::model
