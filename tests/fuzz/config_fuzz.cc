// config.json from nobody knows where: parsing it never crashes, and a spec that comes out is
// consistent enough to be counted, listed and divided.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "model/config_parser.h"
#include "model/memory_estimate.h"

namespace {

using nanocp::model::ModelSpec;
using nlohmann::json;

// Listing the tensors of a larger model takes too long for one input.
constexpr int64_t kListedMatricesMax = 300;
constexpr size_t kPatchBytesMax = 4096;  // the JSON library patches and prints recursively

void check_message(const std::string& message) {
  NANOCP_CHECK(message.starts_with("fuzz"));
  NANOCP_CHECK_LT(message.size(), 1000U);
  for (const char c : message) NANOCP_CHECK(c >= 0x20 && c < 0x7f);
}

void check_spec(const ModelSpec& spec) {
  const auto& attention = spec.attention;
  const auto& router = spec.moe.router;
  NANOCP_CHECK_EQ(spec.layers.size(), static_cast<size_t>(spec.num_layers));
  NANOCP_CHECK(attention.num_heads > 0 && attention.cache_num_kv_heads() > 0);
  NANOCP_CHECK_EQ(attention.num_heads % attention.cache_num_kv_heads(), 0);
  NANOCP_CHECK(spec.rotary.rotary_dim >= 2 && spec.rotary.rotary_dim % 2 == 0);
  NANOCP_CHECK_LE(spec.rotary.rotary_dim, attention.cache_k_dim());
  NANOCP_CHECK(std::isfinite(attention.softmax_scale) && attention.softmax_scale > 0);
  NANOCP_CHECK(std::isfinite(spec.rotary.theta) && spec.rotary.theta > 0);
  NANOCP_CHECK(std::isfinite(spec.rotary.cos_sin_scale) && spec.rotary.factor >= 1);
  NANOCP_CHECK(router.topk >= 1 && router.topk <= spec.moe.num_experts);
  NANOCP_CHECK_EQ(spec.moe.num_experts % router.num_groups, 0);
  NANOCP_CHECK_LE(router.topk, router.topk_groups * (spec.moe.num_experts / router.num_groups));
  NANOCP_CHECK_GE(nanocp::model::kv_bytes_per_token(spec), 1);
  if (int64_t{spec.num_layers} * (spec.moe.num_experts + 10) > kListedMatricesMax) return;
  const auto parameters = nanocp::model::count_parameters(spec);
  const auto bytes = nanocp::model::count_weight_bytes(spec);
  NANOCP_CHECK(parameters.active > 0 && parameters.active <= parameters.total);
  NANOCP_CHECK(bytes.per_instance(3) > 0 && bytes.per_instance(3) <= bytes.total());
}

void check_config(std::string_view text) {
  const auto spec = nanocp::model::parse_config(text, "fuzz");
  if (spec.ok()) {
    check_spec(*spec);
  } else {
    check_message(spec.error().message);
  }
}

// One per family.
std::vector<json> good_configs() {
  const char* texts[] = {
      R"({"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "intermediate_size": 64})",
      R"({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2,
          "intermediate_size": 96, "sliding_window": 100})",
      R"({"model_type": "deepseek_v2", "n_routed_experts": 8, "num_experts_per_tok": 3,
          "moe_intermediate_size": 32, "intermediate_size": 64, "n_shared_experts": 2,
          "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16})",
      R"({"model_type": "kimi_k2", "n_routed_experts": 16, "num_experts_per_tok": 4,
          "moe_intermediate_size": 32, "intermediate_size": 64, "q_lora_rank": 24, "n_group": 4,
          "topk_group": 2, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
          "v_head_dim": 16, "rope_scaling": {"type": "yarn", "factor": 4, "mscale": 1.0,
          "mscale_all_dim": 1.0, "original_max_position_embeddings": 2048},
          "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})",
      R"({"model_type": "gpt_oss", "num_local_experts": 8, "num_experts_per_tok": 2,
          "intermediate_size": 64, "sliding_window": 64, "head_dim": 16,
          "quantization_config": {"quant_method": "mxfp4"}})",
      R"({"model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2,
          "moe_intermediate_size": 32, "intermediate_size": 64, "n_shared_experts": 1,
          "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})"};
  std::vector<json> configs;
  for (const char* text : texts) {
    json config = {{"vocab_size", 512},
                   {"hidden_size", 64},
                   {"num_hidden_layers", 3},
                   {"max_position_embeddings", 8192},
                   {"num_attention_heads", 4}};
    config.merge_patch(json::parse(text));
    NANOCP_CHECK(nanocp::model::parse_config(config.dump(), "fuzz").ok());
    configs.push_back(config);
  }
  return configs;
}

}  // namespace

// The input is a config, and a JSON merge patch of a good one of each family.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<json> kGood = good_configs();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  check_config(input);
  if (size > kPatchBytesMax) return 0;
  const json patch = json::parse(input, nullptr, false);
  if (!patch.is_object()) return 0;
  for (json config : kGood) {
    config.merge_patch(patch);
    check_config(config.dump());
  }
  return 0;
}
