#include "model/config_validation.h"

#include <cmath>
#include <string>

#include "tensor/weight.h"

namespace nanocp::model {
namespace {

std::string named(const char* name, int64_t value) {
  return std::string(name) + " " + std::to_string(value);
}

void validate_attention(ConfigReader& config, const ModelSpec& spec) {
  const AttentionSpec& attention = spec.attention;
  if (attention.kind == AttentionKind::kGqa && attention.num_heads % attention.num_kv_heads != 0) {
    config.reject(named("num_attention_heads", attention.num_heads) + " is not a multiple of " +
                  named("num_key_value_heads", attention.num_kv_heads));
  }
  const int32_t rotary_dim = spec.rotary.rotary_dim;
  if (rotary_dim < 2 || rotary_dim % 2 != 0) {
    const bool is_mla = attention.kind == AttentionKind::kMla;
    const std::string of = is_mla
                               ? "qk_rope_head_dim"
                               : named("head_dim", attention.head_dim) + " x partial_rotary_factor";
    config.reject(of + " gives " + std::to_string(rotary_dim) +
                  " rotary dimensions; an even number of at least 2 is needed");
  }
}

void validate_router(ConfigReader& config, const ModelSpec& spec) {
  const RouterSpec& router = spec.moe.router;
  const int32_t num_experts = spec.moe.num_experts;
  const std::string experts = std::to_string(num_experts) + " experts";
  if (router.topk > num_experts) {
    config.reject(named("num_experts_per_tok", router.topk) + " is above the number of " + experts);
  }
  if (num_experts % router.num_groups != 0) {
    config.reject(named("n_group", router.num_groups) + " does not divide the " + experts);
    return;
  }
  if (router.topk_groups > router.num_groups) {
    config.reject(named("topk_group", router.topk_groups) + " is above " +
                  named("n_group", router.num_groups));
  }
  const int64_t group_size = num_experts / router.num_groups;
  if (router.topk > router.topk_groups * group_size) {
    config.reject(named("num_experts_per_tok", router.topk) + " is above the " +
                  std::to_string(router.topk_groups * group_size) + " experts that " +
                  named("topk_group", router.topk_groups) + " groups leave");
  }
  if (router.group_score == RouterGroupScore::kTop2Sum && group_size < 2) {
    config.reject(named("n_group", router.num_groups) + " leaves fewer than 2 of the " + experts +
                  " in a group");
  }
}

void validate_quantization(ConfigReader& config, const ModelSpec& spec) {
  const bool is_gpt_oss = spec.family == Family::kGptOss;
  if (spec.quantization.kind == Quantization::kFp8Block && is_gpt_oss) {
    config.reject_unsupported("quantization_config: fp8 is not supported for gpt_oss; use mxfp4");
  }
  if (spec.quantization.kind != Quantization::kMxfp4) return;
  if (!is_gpt_oss) {
    config.reject_unsupported("quantization_config: mxfp4 is supported for gpt_oss only");
  }
  const auto check = [&](const char* name, int32_t value) {
    if (value % tensor::kMxfp4GroupSize != 0) {
      config.reject(named(name, value) + " is not a multiple of 32, as mxfp4 needs");
    }
  };
  check("hidden_size", spec.hidden_size);
  check("intermediate_size", spec.moe.expert_intermediate_size);
}

double attention_parameters(const ModelSpec& spec) {
  const AttentionSpec& a = spec.attention;
  const double hidden = spec.hidden_size;
  const double heads = a.num_heads;
  if (a.kind == AttentionKind::kGqa) {
    return 2 * hidden * a.head_dim * (heads + a.num_kv_heads);
  }
  const double query_in = a.q_lora_rank > 0 ? a.q_lora_rank : hidden;
  return hidden * a.q_lora_rank + query_in * heads * (a.qk_nope_head_dim + a.qk_rope_head_dim) +
         hidden * (a.kv_lora_rank + a.qk_rope_head_dim) +
         heads * a.kv_lora_rank * (a.qk_nope_head_dim + a.v_head_dim) +
         heads * a.v_head_dim * hidden;
}

void validate_total_size(ConfigReader& config, const ModelSpec& spec) {
  const double hidden = spec.hidden_size;
  double total = 2 * hidden * spec.vocab_size + spec.num_layers * attention_parameters(spec);
  int64_t matrices = 0;
  for (const LayerSpec& layer : spec.layers) {
    const double experts =
        static_cast<double>(spec.moe.num_experts) * (spec.moe.expert_intermediate_size + 1.0) +
        spec.moe.shared_intermediate_size;
    total += 3 * hidden * (layer.is_moe ? experts : spec.dense_intermediate_size);
    matrices += layer.is_moe ? int64_t{3} * spec.moe.num_experts : 0;
  }
  if (total > kParametersMax) {
    config.reject("the sizes make " + std::to_string(total / 1e12) +
                  "e12 parameters, above the limit of 1e15; see hidden_size, num_hidden_layers "
                  "and the expert sizes");
  }
  if (matrices > kExpertMatricesMax) {
    config.reject("num_hidden_layers x experts makes " + std::to_string(matrices) +
                  " expert matrices, above the limit of " + std::to_string(kExpertMatricesMax));
  }
}

}  // namespace

void validate_spec(ConfigReader& config, const ModelSpec& spec) {
  validate_attention(config, spec);
  validate_router(config, spec);
  validate_quantization(config, spec);
  validate_total_size(config, spec);
}

}  // namespace nanocp::model
