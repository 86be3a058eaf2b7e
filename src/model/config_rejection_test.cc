// Bad configs: each is a known good one with a few keys changed, and must be refused with one line
// that names the file and the key.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "model/config_parser.h"
#include "model/test_support.h"

namespace nanocp::model {
namespace {

using nlohmann::json;

struct BadConfig {
  const char* base;    // fixture
  const char* change;  // JSON merge patch (RFC 7386): null removes
  const char* wanted;  // part of the message
  ErrorCode code = ErrorCode::kInvalidArgument;
};

const BadConfig kBadConfigs[] = {
    {"qwen3_moe", R"({"model_type": "llama"})", "supported: qwen3_moe, mixtral, deepseek_v2",
     ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"architectures": ["LlamaForCausalLM"]})", "Qwen3MoeForCausalLM",
     ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"model_type": "mixtral"})", "model_type is mixtral but architectures says"},
    {"qwen3_moe", R"({"model_type": null, "architectures": null})", "model_type"},
    {"qwen3_moe", R"({"model_type": 5})", "model_type must be a text, found 5"},
    {"qwen3_moe", R"({"architectures": [7]})", "architectures must be a list of texts"},
    {"qwen3_moe", R"({"hidden_size": null})", "hidden_size is missing"},
    {"qwen3_moe", R"({"hidden_size": 0})", "hidden_size must be a whole number"},
    {"qwen3_moe", R"({"hidden_size": -64})", "found -64"},
    {"qwen3_moe", R"({"hidden_size": 64.5})", "found 64.5"},
    {"qwen3_moe", R"({"hidden_size": 18446744073709551615})", "found 18446744073709551615"},
    {"qwen3_moe", R"({"hidden_size": "64"})", "hidden_size"},
    {"qwen3_moe", R"({"vocab_size": 1e300})", "vocab_size"},
    {"qwen3_moe", R"({"num_hidden_layers": 100000})", "num_hidden_layers"},
    {"qwen3_moe", R"({"num_key_value_heads": 3})", "num_attention_heads 8 is not a multiple of"},
    {"qwen3_moe", R"({"num_key_value_heads": 16})", "num_key_value_heads 16"},
    {"qwen3_moe", R"({"head_dim": 15})", "rotary dimensions"},
    {"qwen3_moe", R"({"num_experts_per_tok": 9})", "num_experts_per_tok 9 is above"},
    {"qwen3_moe", R"({"num_experts": 7})", "num_local_experts is 8 but num_experts is 7"},
    {"qwen3_moe", R"({"num_local_experts": null})", "num_local_experts is missing"},
    {"qwen3_moe", R"({"mlp_only_layers": [3]})", "mlp_only_layers"},
    {"qwen3_moe", R"({"hidden_act": "gelu"})", "hidden_act", ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"dtype": "float8"})", "dtype", ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"torch_dtype": "float16"})", "torch_dtype"},
    {"qwen3_moe", R"({"eos_token_id": 512})", "eos_token_id"},
    {"qwen3_moe", R"({"eos_token_id": [1, "x"]})", "eos_token_id"},
    {"qwen3_moe", R"({"rms_norm_eps": 0})", "rms_norm_eps"},
    {"qwen3_moe", R"({"tie_word_embeddings": "no"})", "tie_word_embeddings must be true or false"},
    {"qwen3_moe", R"({"rope_parameters": {"rope_type": "llama3"}})", "llama3",
     ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"rope_parameters": {"rope_type": "yarn"}})", "rope_parameters: factor"},
    {"qwen3_moe", R"({"rope_parameters": {"rope_type": "yarn", "factor": 0.5}})", "factor"},
    {"qwen3_moe", R"({"rope_parameters": {"rope_type": "yarn", "type": "linear", "factor": 2}})",
     "rope_type is yarn but type is linear"},
    {"qwen3_moe", R"({"rope_theta": 500.0})", "rope_theta"},
    {"qwen3_moe", R"({"rope_parameters": {"rope_theta": -1}})", "rope_theta"},
    {"qwen3_moe", R"({"rope_parameters": [1]})", "rope_parameters: found a list"},
    {"qwen3_moe", R"({"quantization_config": {"quant_method": "awq"}})", "awq",
     ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"quantization_config": {"quant_method": "mxfp4"}})", "mxfp4",
     ErrorCode::kUnsupported},
    {"qwen3_moe", R"({"use_sliding_window": true, "sliding_window": -5})", "sliding_window"},
    {"qwen3_moe",
     R"({"hidden_size": 16777216, "moe_intermediate_size": 16777216, "num_local_experts": 16384})",
     "1e15"},
    {"qwen3_moe", R"({"num_hidden_layers": 4000, "num_local_experts": 16384})", "expert matrices"},
    {"qwen3_moe_fp8", R"({"quantization_config": {"weight_block_size": null}})",
     "weight_block_size", ErrorCode::kUnsupported},
    {"qwen3_moe_fp8", R"({"quantization_config": {"weight_block_size": [0, 128]}})",
     "weight_block_size"},
    {"qwen3_moe_fp8", R"({"quantization_config": {"fmt": "e5m2"}})", "fmt",
     ErrorCode::kUnsupported},
    {"mixtral", R"({"hidden_size": 60})", "not a multiple of num_attention_heads 8"},
    {"mixtral", R"({"layer_types": ["sliding_attention", "full_attention"]})", "sliding_window"},
    {"deepseek_v2", R"({"topk_method": "noaux_tc"})", "topk_method", ErrorCode::kUnsupported},
    {"deepseek_v2", R"({"scoring_func": "sigmoid"})", "scoring_func", ErrorCode::kUnsupported},
    {"deepseek_v2", R"({"attention_bias": true})", "attention_bias", ErrorCode::kUnsupported},
    {"deepseek_v2", R"({"qk_rope_head_dim": 7})", "qk_rope_head_dim gives 7"},
    {"deepseek_v2", R"({"num_key_value_heads": 2})", "num_key_value_heads is 2"},
    {"deepseek_v2", R"({"first_k_dense_replace": 4})", "first_k_dense_replace"},
    {"deepseek_v2", R"({"n_shared_experts": 16384, "moe_intermediate_size": 16384})",
     "n_shared_experts"},
    {"deepseek_v2", R"({"kv_lora_rank": null})", "kv_lora_rank is missing"},
    {"deepseek_v3", R"({"n_group": 3})", "n_group 3 does not divide the 16 experts"},
    {"deepseek_v3", R"({"topk_group": 5})", "topk_group 5 is above n_group 4"},
    {"deepseek_v3", R"({"topk_group": 1, "num_experts_per_tok": 5})", "num_experts_per_tok 5"},
    {"deepseek_v3", R"({"n_group": 16, "topk_group": 8})", "n_group 16 leaves fewer than 2"},
    {"deepseek_v3", R"({"n_group": null})", "n_group is missing"},
    {"deepseek_v3", R"({"rope_parameters": {"mscale_all_dim": -3}})", "mscale_all_dim"},
    {"deepseek_v3", R"({"rope_parameters": {"beta_slow": 64}})", "beta_fast"},
    {"gpt_oss", R"({"layer_types": ["full_attention"]})", "layer_types has 1 entries"},
    {"gpt_oss", R"({"layer_types": ["linear", "linear", "linear", "linear"]})", "linear",
     ErrorCode::kUnsupported},
    {"gpt_oss", R"({"sliding_window": null})", "sliding_window"},
    {"gpt_oss", R"({"swiglu_limit": 5.0})", "swiglu_limit", ErrorCode::kUnsupported},
    {"gpt_oss", R"({"quantization_config": {"quant_method": "fp8", "weight_block_size": [1, 1]}})",
     "gpt_oss", ErrorCode::kUnsupported},
    {"gpt_oss_mxfp4", R"({"hidden_size": 72})", "hidden_size 72 is not a multiple of 32"},
    {"gpt_oss_mxfp4", R"({"intermediate_size": 33})", "intermediate_size 33"},
    {"glm4_moe", R"({"rope_parameters": {"partial_rotary_factor": 1.5}})", "partial_rotary_factor"},
    {"glm4_moe", R"({"rope_parameters": {"partial_rotary_factor": 0.01}})", "rotary dimensions"},
};

void expect_refused(const Result<ModelSpec>& spec, const std::string& wanted, ErrorCode code,
                    const std::string& what) {
  ASSERT_FALSE(spec.ok()) << what;
  const std::string& message = spec.error().message;
  EXPECT_NE(message.find(wanted), std::string::npos) << what << "\n" << message;
  EXPECT_TRUE(message.starts_with("dir/config.json")) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  EXPECT_EQ(spec.error().code, code) << message;
}

TEST(ConfigParser, RefusesContradictionsAndNamesTheKey) {
  for (const BadConfig& bad : kBadConfigs) {
    json config = json::parse(read_all(fixture_dir(bad.base) / "config.json"));
    config.merge_patch(json::parse(bad.change));
    const auto spec = parse_config(config.dump(), "dir/config.json");
    expect_refused(spec, bad.wanted, bad.code, std::string(bad.base) + " with " + bad.change);
  }
}

TEST(ConfigParser, RefusesTextThatIsNotJson) {
  const std::string deep(100'000, '[');
  const std::pair<std::string, const char*> cases[] = {
      {"", "not valid JSON"},
      {"{", "not valid JSON"},
      {"[]", "found a list instead of an object"},
      {"null", "instead of an object"},
      {"{\"a\": 1e999}", "number"},
      {"{\"a\": \"\xff\xfe\"}", "\\xff"},
      {"{\"a\": 1, \"a\": 2}", "the key \"a\" twice"},
      {"{\"model_type\": \"a\\u0000\\u001b[31m\"}", "a\\x00\\x1b[31m"},
      {deep, "nests deeper than 64"},
  };
  for (const auto& [text, wanted] : cases) {
    const auto spec = parse_config(text, "dir/config.json");
    ASSERT_FALSE(spec.ok()) << text.substr(0, 40);
    EXPECT_NE(spec.error().message.find(wanted), std::string::npos) << spec.error().message;
    EXPECT_EQ(spec.error().message.find('\n'), std::string::npos);
    EXPECT_LT(spec.error().message.size(), 400U);
  }
}

TEST(ConfigParser, RefusesFilesThatAreNotThereOrNotFiles) {
  const ScratchDir dir;
  const auto missing = read_config(dir.path() / "config.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("config.json"), std::string::npos);
  const auto device = read_config("/dev/null");
  ASSERT_FALSE(device.ok());
  EXPECT_NE(device.error().message.find("regular file"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::model
