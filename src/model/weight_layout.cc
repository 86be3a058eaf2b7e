#include "model/weight_layout.h"

namespace nanocp::model {
namespace {

class Walk {
 public:
  Walk(const ModelSpec& spec, WeightVisitor& visitor) : spec_(spec), visitor_(visitor) {}

  Status run(ModelWeights& weights) {
    LinearWeights embedding;
    NANOCP_RETURN_IF_ERROR(visitor_.linear({.name = "model.embed_tokens",
                                            .rows = spec_.vocab_size,
                                            .cols = spec_.hidden_size,
                                            .bias = false,
                                            .role = WeightRole::kEmbedding},
                                           embedding));
    weights.embedding = embedding.weight;
    weights.layers.resize(spec_.layers.size());
    for (size_t i = 0; i < weights.layers.size(); ++i) {
      prefix_ = "model.layers." + std::to_string(i) + ".";
      NANOCP_RETURN_IF_ERROR(layer(spec_.layers[i], weights.layers[i]));
    }
    NANOCP_RETURN_IF_ERROR(visitor_.vector("model.norm.weight", hidden(), weights.final_norm));
    if (spec_.tie_word_embeddings) {
      weights.lm_head.weight = weights.embedding;
      return ok_status();
    }
    return visitor_.linear({.name = "lm_head",
                            .rows = spec_.vocab_size,
                            .cols = hidden(),
                            .bias = false,
                            .role = WeightRole::kPlain},
                           weights.lm_head);
  }

 private:
  struct Shape {
    int64_t rows;
    int64_t cols;
  };

  int64_t hidden() const { return spec_.hidden_size; }

  Status linear(const std::string& name, Shape shape, bool bias, LinearWeights& out,
                WeightRole role = WeightRole::kProjection) {
    return visitor_.linear({.name = prefix_ + name,
                            .rows = shape.rows,
                            .cols = shape.cols,
                            .bias = bias,
                            .role = role},
                           out);
  }

  Status vector(const std::string& name, int64_t size, std::vector<float>& out) {
    return visitor_.vector(prefix_ + name, size, out);
  }

  Status layer(const LayerSpec& layer_spec, LayerWeights& out) {
    NANOCP_RETURN_IF_ERROR(vector("input_layernorm.weight", hidden(), out.input_norm));
    NANOCP_RETURN_IF_ERROR(spec_.attention.kind == AttentionKind::kMla ? mla(out.mla)
                                                                       : gqa(out.gqa));
    NANOCP_RETURN_IF_ERROR(
        vector("post_attention_layernorm.weight", hidden(), out.post_attention_norm));
    if (!layer_spec.is_moe) {
      return gated_mlp("mlp.", spec_.dense_intermediate_size, WeightRole::kProjection, out.dense);
    }
    return moe(out);
  }

  Status gqa(GqaWeights& out) {
    const AttentionSpec& a = spec_.attention;
    const int64_t q_rows = int64_t{a.num_heads} * a.head_dim;
    const int64_t kv_rows = int64_t{a.num_kv_heads} * a.head_dim;
    NANOCP_RETURN_IF_ERROR(linear("self_attn.q_proj", {q_rows, hidden()}, a.qkv_bias, out.q));
    NANOCP_RETURN_IF_ERROR(linear("self_attn.k_proj", {kv_rows, hidden()}, a.qkv_bias, out.k));
    NANOCP_RETURN_IF_ERROR(linear("self_attn.v_proj", {kv_rows, hidden()}, a.qkv_bias, out.v));
    NANOCP_RETURN_IF_ERROR(linear("self_attn.o_proj", {hidden(), q_rows}, a.output_bias, out.o));
    if (a.qk_norm) {
      NANOCP_RETURN_IF_ERROR(vector("self_attn.q_norm.weight", a.head_dim, out.q_norm));
      NANOCP_RETURN_IF_ERROR(vector("self_attn.k_norm.weight", a.head_dim, out.k_norm));
    }
    if (a.sinks) return vector("self_attn.sinks", a.num_heads, out.sinks);
    return ok_status();
  }

  Status mla(MlaWeights& out) {
    const AttentionSpec& a = spec_.attention;
    const int64_t heads = a.num_heads;
    const int64_t q_rows = heads * (a.qk_nope_head_dim + a.qk_rope_head_dim);
    if (a.q_lora_rank > 0) {
      const int64_t rank = a.q_lora_rank;
      NANOCP_RETURN_IF_ERROR(linear("self_attn.q_a_proj", {rank, hidden()}, false, out.q_a));
      NANOCP_RETURN_IF_ERROR(vector("self_attn.q_a_layernorm.weight", rank, out.q_a_norm));
      NANOCP_RETURN_IF_ERROR(linear("self_attn.q_b_proj", {q_rows, rank}, false, out.q_b));
    } else {
      NANOCP_RETURN_IF_ERROR(linear("self_attn.q_proj", {q_rows, hidden()}, false, out.q_b));
    }
    const int64_t latent = a.kv_lora_rank;
    NANOCP_RETURN_IF_ERROR(linear("self_attn.kv_a_proj_with_mqa",
                                  {latent + a.qk_rope_head_dim, hidden()}, false, out.kv_a));
    NANOCP_RETURN_IF_ERROR(vector("self_attn.kv_a_layernorm.weight", latent, out.kv_a_norm));
    const int64_t up_rows = heads * (a.qk_nope_head_dim + a.v_head_dim);
    NANOCP_RETURN_IF_ERROR(visitor_.latent_up({.name = prefix_ + "self_attn.kv_b_proj",
                                               .rows = up_rows,
                                               .cols = latent,
                                               .bias = false,
                                               .role = WeightRole::kProjection},
                                              a, out));
    return linear("self_attn.o_proj", {hidden(), heads * a.v_head_dim}, false, out.o);
  }

  Status moe(LayerWeights& out) {
    const MoeSpec& moe_spec = spec_.moe;
    const bool is_mixtral = spec_.family == Family::kMixtral;
    const bool is_gpt_oss = spec_.family == Family::kGptOss;
    const std::string block = is_mixtral ? "block_sparse_moe." : "mlp.";
    const std::string router = block + (is_gpt_oss ? "router" : "gate");
    NANOCP_RETURN_IF_ERROR(linear(router, {moe_spec.num_experts, hidden()},
                                  moe_spec.router.router_bias, out.router, WeightRole::kPlain));
    if (moe_spec.router.correction_bias) {
      NANOCP_RETURN_IF_ERROR(
          vector("mlp.gate.e_score_correction_bias", moe_spec.num_experts, out.correction_bias));
    }
    out.experts.resize(static_cast<size_t>(moe_spec.num_experts));
    if (is_gpt_oss) {
      return visitor_.fused_experts({.prefix = prefix_ + "mlp.experts",
                                     .num_experts = moe_spec.num_experts,
                                     .hidden = hidden(),
                                     .intermediate = moe_spec.expert_intermediate_size,
                                     .bias = moe_spec.expert_bias,
                                     .mxfp4 = spec_.quantization.kind == Quantization::kMxfp4},
                                    out.experts);
    }
    for (size_t i = 0; i < out.experts.size(); ++i) {
      const std::string expert = block + "experts." + std::to_string(i) + ".";
      NANOCP_RETURN_IF_ERROR(gated_mlp(expert, moe_spec.expert_intermediate_size,
                                       WeightRole::kExpert, out.experts[i]));
    }
    if (moe_spec.shared_intermediate_size == 0) return ok_status();
    return gated_mlp("mlp.shared_experts.", moe_spec.shared_intermediate_size,
                     WeightRole::kProjection, out.shared);
  }

  Status gated_mlp(const std::string& block, int64_t inner, WeightRole role, GatedMlpWeights& out) {
    // Mixtral's paper names: w1 gate, w3 up, w2 down.
    const bool numbered = spec_.family == Family::kMixtral;
    const std::string gate = block + (numbered ? "w1" : "gate_proj");
    const std::string up = block + (numbered ? "w3" : "up_proj");
    const std::string down = block + (numbered ? "w2" : "down_proj");
    NANOCP_RETURN_IF_ERROR(linear(gate, {inner, hidden()}, false, out.gate, role));
    NANOCP_RETURN_IF_ERROR(linear(up, {inner, hidden()}, false, out.up, role));
    return linear(down, {hidden(), inner}, false, out.down, role);
  }

  const ModelSpec& spec_;
  WeightVisitor& visitor_;
  std::string prefix_;  // of the layer being visited
};

}  // namespace

Status visit_weights(const ModelSpec& spec, WeightVisitor& visitor, ModelWeights& weights) {
  return Walk(spec, visitor).run(weights);
}

}  // namespace nanocp::model
