// One description for every supported family. `config.json` is turned into a ModelSpec (see
// model/config_parser.h); the forward pass, the loader and `nanocp inspect` read only this.
// Plain data, immutable after parsing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "ops/activation.h"
#include "ops/rotary.h"
#include "ops/topk_gate.h"
#include "plan/ids.h"
#include "tensor/weight.h"

namespace nanocp::model {

enum class Family { kQwen3Moe, kMixtral, kDeepseekV2, kDeepseekV3, kGptOss, kGlm4Moe };

enum class AttentionKind {
  kGqa,  // grouped-query: K and V per KV head
  kMla,  // multi-head latent attention: one latent + rotary key per token (DeepSeek-V2, 2024)
};

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kGqa;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;  // 1 in the latent space of MLA
  int32_t head_dim = 0;      // GQA: of q, k and v
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;  // RMS norm over head_dim of each q and k head, before the rotation
  bool sinks = false;    // one learned logit per head in the softmax denominator (gpt-oss)
  // MLA only.
  int32_t q_lora_rank = 0;  // 0: the query is projected directly
  int32_t kv_lora_rank = 0;
  int32_t qk_nope_head_dim = 0;
  int32_t qk_rope_head_dim = 0;
  int32_t v_head_dim = 0;
  float softmax_scale = 0.0F;  // of q.k, YaRN's factor included

  bool is_mla() const { return kind == AttentionKind::kMla; }
  // Widths as the KV cache and the exchange see them (latent space for MLA).
  int32_t cache_k_dim() const {
    return kind == AttentionKind::kMla ? kv_lora_rank + qk_rope_head_dim : head_dim;
  }
  int32_t cache_v_dim() const { return kind == AttentionKind::kMla ? kv_lora_rank : head_dim; }
  int32_t cache_num_kv_heads() const { return kind == AttentionKind::kMla ? 1 : num_kv_heads; }
  // Values stored per token and layer; MLA's V is the first part of its K and is stored once.
  int64_t cache_values_per_token() const {
    return kind == AttentionKind::kMla ? cache_k_dim() : int64_t{2} * num_kv_heads * head_dim;
  }

  bool operator==(const AttentionSpec&) const = default;
};

using ops::Activation;
using ops::RotaryScaling;
using ops::RotarySpec;
using ops::RouterGroupScore;
using ops::RouterScore;
using ops::RouterSpec;

struct MoeSpec {
  int32_t num_experts = 0;
  int32_t expert_intermediate_size = 0;
  int32_t shared_intermediate_size = 0;  // all shared experts together; 0: none
  bool expert_bias = false;
  Activation activation = Activation::kSwiglu;
  RouterSpec router;

  bool operator==(const MoeSpec&) const = default;
};

struct LayerSpec {
  bool is_moe = true;
  int32_t sliding_window = 0;  // tokens seen, the own one included; 0: all

  bool operator==(const LayerSpec&) const = default;
};

enum class Quantization { kNone, kFp8Block, kMxfp4 };

struct QuantizationSpec {
  Quantization kind = Quantization::kNone;
  int32_t block_rows = 128;  // fp8
  int32_t block_cols = 128;

  bool operator==(const QuantizationSpec&) const = default;
};

struct ModelSpec {
  Family family = Family::kQwen3Moe;
  std::string architecture;  // as in config.json
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_nextn_layers = 0;  // multi-token-prediction layers in the checkpoint, not used
  int64_t max_position = 0;
  float rms_norm_eps = 1e-6F;
  bool tie_word_embeddings = false;
  int32_t dense_intermediate_size = 0;  // MLP of layers that are not MoE
  AttentionSpec attention;
  RotarySpec rotary;
  MoeSpec moe;
  std::vector<LayerSpec> layers;  // [num_layers]
  // Of tensors that are not quantised, for dummy weights and estimates; a checkpoint's own types
  // go before it.
  tensor::WeightFormat weight_format = tensor::WeightFormat::kBf16;
  QuantizationSpec quantization;
  std::vector<TokenId> eos_token_ids;

  bool operator==(const ModelSpec&) const = default;
};

}  // namespace nanocp::model
