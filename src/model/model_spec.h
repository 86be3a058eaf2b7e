// One description for every supported family. `config.json` is turned into a ModelSpec (see
// model/config_parser.h); the forward pass, the loader and `nanocp inspect` read only this.
// Plain data, immutable after parsing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/ids.h"

namespace nanocp::model {

enum class Family { kQwen3Moe, kMixtral, kDeepseekV2, kDeepseekV3, kGptOss, kGlm4Moe };

enum class AttentionKind {
  kGqa,  // grouped-query: K and V per KV head
  kMla,  // multi-head latent attention: one latent + rotary key per token (DeepSeek-V2, 2024)
};

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kGqa;
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;   // 1 in the latent space of MLA
  int32_t head_dim = 0;       // GQA: of q, k and v
  bool qkv_bias = false;
  bool output_bias = false;
  bool qk_norm = false;       // RMS norm over head_dim of each q and k head, before the rotation
  bool sinks = false;         // one learned logit per head in the softmax denominator (gpt-oss)
  // MLA only.
  int32_t q_lora_rank = 0;    // 0: the query is projected directly
  int32_t kv_lora_rank = 0;
  int32_t qk_nope_head_dim = 0;
  int32_t qk_rope_head_dim = 0;
  int32_t v_head_dim = 0;
  float softmax_scale = 0.0F; // of q.k, YaRN's factor included

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
};

enum class RotaryScaling { kNone, kLinear, kYarn };

struct RotarySpec {
  int32_t rotary_dim = 0;     // leading dims of a head that rotate (trailing rope part for MLA)
  double theta = 10000.0;
  bool interleaved = false;   // pairs (0,1),(2,3).. instead of (0,d/2),(1,d/2+1)..
  RotaryScaling scaling = RotaryScaling::kNone;
  double factor = 1.0;
  double beta_fast = 32.0;    // YaRN (Peng et al., 2023)
  double beta_slow = 1.0;
  bool truncate = true;       // YaRN: round the correction range to whole dims
  int64_t original_max_position = 0;
  double cos_sin_scale = 1.0; // YaRN's attention factor on cos and sin
};

enum class RouterScore { kSoftmax, kSigmoid };
// How the score of a group of experts is formed before whole groups are dropped.
enum class RouterGroupScore { kNone, kMax, kTop2Sum };

struct RouterSpec {
  RouterScore score = RouterScore::kSoftmax;
  RouterGroupScore group_score = RouterGroupScore::kNone;
  bool correction_bias = false; // added to scores for the choice, not for the weights
  bool router_bias = false;     // a bias of the router's linear layer (gpt-oss)
  bool renormalize = false;     // divide the chosen weights by their sum
  int32_t num_groups = 1;
  int32_t topk_groups = 1;      // groups that stay
  int32_t topk = 0;             // experts per token
  float scaling = 1.0F;         // on the weights, last
};

enum class Activation {
  kSwiglu,         // silu(gate) * up
  kClampedSwiglu,  // gpt-oss: (up + 1) * gate * sigmoid(1.702 gate), gate <= 7, |up| <= 7
};

struct MoeSpec {
  int32_t num_experts = 0;
  int32_t expert_intermediate_size = 0;
  int32_t shared_intermediate_size = 0;  // all shared experts together; 0: none
  bool expert_bias = false;
  Activation activation = Activation::kSwiglu;
  RouterSpec router;
};

struct LayerSpec {
  bool is_moe = true;
  int32_t sliding_window = 0;  // tokens seen, the own one included; 0: all
};

enum class Quantization { kNone, kFp8Block, kMxfp4 };

struct QuantizationSpec {
  Quantization kind = Quantization::kNone;
  int32_t block_rows = 128;  // fp8
  int32_t block_cols = 128;
};

struct ModelSpec {
  Family family = Family::kQwen3Moe;
  std::string architecture;     // as in config.json
  int32_t vocab_size = 0;
  int32_t hidden_size = 0;
  int32_t num_layers = 0;
  int32_t num_nextn_layers = 0; // multi-token-prediction layers in the checkpoint, not used
  int64_t max_position = 0;
  float rms_norm_eps = 1e-6F;
  bool tie_word_embeddings = false;
  int32_t dense_intermediate_size = 0;  // MLP of layers that are not MoE
  AttentionSpec attention;
  RotarySpec rotary;
  MoeSpec moe;
  std::vector<LayerSpec> layers;  // [num_layers]
  QuantizationSpec quantization;
  std::vector<TokenId> eos_token_ids;
};

}  // namespace nanocp::model
