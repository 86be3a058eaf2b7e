#include "model/config_families.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "model/config_layers.h"
#include "model/config_rotary.h"
#include "model/config_validation.h"
#include "model/printable.h"

namespace nanocp::model {
namespace {

int32_t size(ConfigReader& config, ConfigReader::Names names) {
  return static_cast<int32_t>(config.integer(names, {1, kSizeMax}));
}

void parse_eps(ConfigReader& config, ModelSpec& spec, double fallback) {
  spec.rms_norm_eps = static_cast<float>(config.positive_or("rms_norm_eps", fallback));
}

void parse_gqa(ConfigReader& config, ModelSpec& spec) {
  AttentionSpec& attention = spec.attention;
  attention.kind = AttentionKind::kGqa;
  attention.num_heads =
      static_cast<int32_t>(config.integer({"num_attention_heads"}, {1, kHeadsMax}));
  attention.num_kv_heads = static_cast<int32_t>(
      config.integer_or({"num_key_value_heads"}, {1, kHeadsMax}, attention.num_heads));
  if (!config.has("head_dim") && spec.hidden_size % attention.num_heads != 0) {
    config.reject("hidden_size " + std::to_string(spec.hidden_size) +
                  " is not a multiple of num_attention_heads " +
                  std::to_string(attention.num_heads) + ", and head_dim is missing");
  }
  attention.head_dim = static_cast<int32_t>(
      config.integer_or({"head_dim"}, {1, kHeadDimMax}, spec.hidden_size / attention.num_heads));
  attention.softmax_scale = static_cast<float>(1.0 / std::sqrt(attention.head_dim));
}

void parse_mla(ConfigReader& config, ModelSpec& spec) {
  AttentionSpec& attention = spec.attention;
  const ConfigReader::Range dim_range{1, kHeadDimMax};
  attention.kind = AttentionKind::kMla;
  attention.num_heads =
      static_cast<int32_t>(config.integer({"num_attention_heads"}, {1, kHeadsMax}));
  attention.num_kv_heads = 1;
  const int64_t kv_heads =
      config.integer_or({"num_key_value_heads"}, {1, kHeadsMax}, attention.num_heads);
  if (kv_heads != attention.num_heads) {
    config.reject("num_key_value_heads is " + std::to_string(kv_heads) +
                  " but num_attention_heads is " + std::to_string(attention.num_heads) +
                  "; latent attention needs them equal");
  }
  attention.q_lora_rank =
      static_cast<int32_t>(config.integer_or({"q_lora_rank"}, {0, kSizeMax}, 0));
  attention.kv_lora_rank = size(config, {"kv_lora_rank"});
  attention.qk_nope_head_dim =
      static_cast<int32_t>(config.integer({"qk_nope_head_dim"}, dim_range));
  attention.qk_rope_head_dim =
      static_cast<int32_t>(config.integer({"qk_rope_head_dim"}, dim_range));
  attention.v_head_dim = static_cast<int32_t>(config.integer({"v_head_dim"}, dim_range));
  attention.softmax_scale =
      static_cast<float>(1.0 / std::sqrt(attention.qk_nope_head_dim + attention.qk_rope_head_dim));
  if (config.boolean_or("attention_bias", false)) {
    config.reject_unsupported("attention_bias with latent attention is not supported");
  }
}

void parse_experts(ConfigReader& config, ModelSpec& spec, const char* size_name) {
  spec.moe.num_experts = static_cast<int32_t>(
      config.integer({"num_local_experts", "num_experts", "n_routed_experts"}, {1, kExpertsMax}));
  spec.moe.expert_intermediate_size = size(config, {size_name});
  spec.moe.router.topk = static_cast<int32_t>(
      config.integer({"num_experts_per_tok", "experts_per_token"}, {1, kExpertsMax}));
}

void parse_shared_experts(ConfigReader& config, ModelSpec& spec) {
  const int64_t count = config.integer_or({"n_shared_experts"}, {0, kExpertsMax}, 0);
  const int64_t total = count * spec.moe.expert_intermediate_size;
  if (total > kSizeMax) {
    config.reject("n_shared_experts " + std::to_string(count) + " x moe_intermediate_size " +
                  std::to_string(spec.moe.expert_intermediate_size) + " is above " +
                  std::to_string(kSizeMax));
    return;
  }
  spec.moe.shared_intermediate_size = static_cast<int32_t>(total);
}

void parse_groups(ConfigReader& config, RouterSpec& router, RouterGroupScore score) {
  router.num_groups = static_cast<int32_t>(config.integer_or({"n_group"}, {1, kExpertsMax}, 1));
  router.topk_groups = static_cast<int32_t>(config.integer_or({"topk_group"}, {1, kExpertsMax}, 1));
  router.group_score = router.num_groups > 1 ? score : RouterGroupScore::kNone;
}

void require_text(ConfigReader& config, const char* name, const char* wanted) {
  const std::string found = config.text_or(name, wanted);
  if (found != wanted) {
    config.reject_unsupported(std::string(name) + " \"" + printable(found) +
                              "\" is not supported for this model_type; use " + wanted);
  }
}

void parse_sigmoid_router(ConfigReader& config, ModelSpec& spec, double default_scaling) {
  RouterSpec& router = spec.moe.router;
  require_text(config, "scoring_func", "sigmoid");
  require_text(config, "topk_method", "noaux_tc");
  router.score = RouterScore::kSigmoid;
  router.correction_bias = true;
  router.renormalize = config.boolean_or("norm_topk_prob", true);
  router.scaling = static_cast<float>(config.positive_or("routed_scaling_factor", default_scaling));
  parse_groups(config, router, RouterGroupScore::kTop2Sum);
}

void parse_qwen3_moe(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-6);
  parse_gqa(config, spec);
  spec.attention.qk_norm = true;
  spec.attention.qkv_bias = config.boolean_or("attention_bias", false);
  spec.attention.output_bias = spec.attention.qkv_bias;
  parse_experts(config, spec, "moe_intermediate_size");
  spec.moe.router.renormalize = config.boolean_or("norm_topk_prob", false);
  parse_sparse_step_layers(config, spec);
  const bool windowed = config.boolean_or("use_sliding_window", false);
  parse_sliding_windows(config, spec, {.enabled = windowed});
  parse_rotary(config, spec, {.default_theta = 10000.0});
}

void parse_mixtral(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-5);
  parse_gqa(config, spec);
  parse_experts(config, spec, "intermediate_size");
  spec.moe.router.renormalize = true;
  spec.layers.resize(static_cast<size_t>(spec.num_layers));
  parse_sliding_windows(config, spec, {.enabled = true});
  parse_rotary(config, spec, {.default_theta = 1e6});
}

void parse_deepseek_v2(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-6);
  parse_mla(config, spec);
  parse_experts(config, spec, "moe_intermediate_size");
  parse_shared_experts(config, spec);
  RouterSpec& router = spec.moe.router;
  require_text(config, "scoring_func", "softmax");
  router.renormalize = config.boolean_or("norm_topk_prob", false);
  router.scaling = static_cast<float>(config.positive_or("routed_scaling_factor", 1.0));
  const std::string method = config.text_or("topk_method", "greedy");
  if (method == "group_limited_greedy") {
    parse_groups(config, router, RouterGroupScore::kMax);
  } else if (method != "greedy") {
    config.reject_unsupported("topk_method \"" + printable(method) +
                              "\" is not supported; use greedy or group_limited_greedy");
  }
  if (config.boolean_or("mlp_bias", false)) {
    config.reject_unsupported("mlp_bias is not supported");
  }
  parse_dense_first_layers(config, spec, 0);
  parse_rotary(config, spec, {.default_theta = 10000.0, .interleaved = true});
}

void parse_deepseek_v3(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-6);
  parse_mla(config, spec);
  parse_experts(config, spec, "moe_intermediate_size");
  parse_shared_experts(config, spec);
  for (const char* name : {"n_group", "topk_group"}) {
    if (!config.has(name)) config.reject(std::string(name) + " is missing");
  }
  parse_sigmoid_router(config, spec, 2.5);
  parse_dense_first_layers(config, spec, 3);
  const bool interleaved = config.boolean_or("rope_interleave", true);
  parse_rotary(config, spec, {.default_theta = 10000.0, .interleaved = interleaved});
}

void parse_gpt_oss(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-5);
  parse_gqa(config, spec);
  spec.attention.qkv_bias = config.boolean_or("attention_bias", true);
  spec.attention.output_bias = spec.attention.qkv_bias;
  spec.attention.sinks = true;
  parse_experts(config, spec, "intermediate_size");
  spec.moe.expert_bias = true;
  spec.moe.activation = Activation::kClampedSwiglu;
  spec.moe.router.renormalize = true;
  spec.moe.router.router_bias = true;
  const double limit = config.number_or("swiglu_limit", 7.0);
  if (limit != 7.0) {
    config.reject_unsupported("swiglu_limit " + std::to_string(limit) +
                              " is not supported; gpt-oss uses 7.0");
  }
  spec.layers.resize(static_cast<size_t>(spec.num_layers));
  parse_sliding_windows(config, spec, {.enabled = true, .alternating = true});
  parse_rotary(config, spec, {.default_theta = 150000.0});
}

void parse_glm4_moe(ConfigReader& config, ModelSpec& spec) {
  parse_eps(config, spec, 1e-5);
  parse_gqa(config, spec);
  spec.attention.qkv_bias = config.boolean_or("attention_bias", false);
  spec.attention.qk_norm = config.boolean_or("use_qk_norm", false);
  parse_experts(config, spec, "moe_intermediate_size");
  parse_shared_experts(config, spec);
  parse_sigmoid_router(config, spec, 1.0);
  parse_dense_first_layers(config, spec, 1);
  parse_rotary(config, spec, {.default_theta = 10000.0, .default_partial_factor = 0.5});
}

constexpr std::array kFamilies = {
    FamilyParser{Family::kQwen3Moe, "qwen3_moe", "Qwen3MoeForCausalLM", parse_qwen3_moe},
    FamilyParser{Family::kMixtral, "mixtral", "MixtralForCausalLM", parse_mixtral},
    FamilyParser{Family::kDeepseekV2, "deepseek_v2", "DeepseekV2ForCausalLM", parse_deepseek_v2},
    FamilyParser{Family::kDeepseekV3, "deepseek_v3", "DeepseekV3ForCausalLM", parse_deepseek_v3},
    FamilyParser{Family::kDeepseekV3, "kimi_k2", "DeepseekV3ForCausalLM", parse_deepseek_v3},
    FamilyParser{Family::kGptOss, "gpt_oss", "GptOssForCausalLM", parse_gpt_oss},
    FamilyParser{Family::kGlm4Moe, "glm4_moe", "Glm4MoeForCausalLM", parse_glm4_moe},
};

const FamilyParser* find_family(const char* FamilyParser::*field, const std::string& name) {
  const auto found = std::find_if(kFamilies.begin(), kFamilies.end(),
                                  [&](const FamilyParser& entry) { return entry.*field == name; });
  return found == kFamilies.end() ? nullptr : &*found;
}

std::string list_of(const char* FamilyParser::*field) {
  std::string list;
  std::string last;
  for (const FamilyParser& entry : kFamilies) {
    if (entry.*field == last) continue;
    last = entry.*field;
    list += (list.empty() ? "" : ", ") + last;
  }
  return list;
}

}  // namespace

const FamilyParser* choose_family(ConfigReader& config, ModelSpec& spec) {
  const std::string model_type = config.text_or("model_type", "");
  const auto architectures = config.texts("architectures");
  const std::string architecture = architectures.empty() ? "" : architectures.front();
  if (model_type.empty() && architecture.empty()) {
    config.reject("names neither model_type nor architectures: not a model's config.json?");
    return nullptr;
  }
  const FamilyParser* by_type = find_family(&FamilyParser::model_type, model_type);
  const FamilyParser* by_architecture = find_family(&FamilyParser::architecture, architecture);
  if (!model_type.empty() && by_type == nullptr) {
    config.reject_unsupported(
        "model_type \"" + printable(model_type) +
        "\" is not supported; supported: " + list_of(&FamilyParser::model_type));
    return nullptr;
  }
  if (!architecture.empty() && by_architecture == nullptr) {
    config.reject_unsupported(
        "architecture \"" + printable(architecture) +
        "\" is not supported; supported: " + list_of(&FamilyParser::architecture));
    return nullptr;
  }
  if (by_type && by_architecture && by_type->family != by_architecture->family) {
    config.reject("model_type is " + model_type + " but architectures says " + architecture);
    return nullptr;
  }
  const FamilyParser* family = by_type != nullptr ? by_type : by_architecture;
  spec.family = family->family;
  spec.architecture = family->architecture;
  return family;
}

}  // namespace nanocp::model
