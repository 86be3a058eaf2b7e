#include "model/config_parser.h"

#include <gtest/gtest.h>

#include <cmath>

#include "model/test_support.h"

namespace nanocp::model {
namespace {

ModelSpec parse_file(const std::filesystem::path& path) {
  auto spec = read_config(path);
  if (!spec.ok()) ADD_FAILURE() << spec.error().message;
  return spec.ok() ? *spec : ModelSpec{};
}

ModelSpec fixture_spec(const std::string& name) {
  return parse_file(fixture_dir(name) / "config.json");
}

ModelSpec bundled_spec(const std::string& name) {
  return parse_file("configs/" + name + ".json");
}

TEST(ConfigParser, BothKeyStylesGiveTheSameSpec) {
  for (const std::string& name : fixture_names()) {
    const ModelSpec newer = fixture_spec(name);
    const ModelSpec older = parse_file(fixture_dir(name) / "config.legacy.json");
    EXPECT_TRUE(newer == older) << name;
    EXPECT_EQ(newer.vocab_size, 512) << name;
    EXPECT_EQ(newer.eos_token_ids, std::vector<TokenId>{510}) << name;
    EXPECT_EQ(newer.max_position, 8192) << name;
    EXPECT_EQ(newer.weight_format, tensor::WeightFormat::kBf16) << name;
    EXPECT_EQ(newer.layers.size(), static_cast<size_t>(newer.num_layers)) << name;
  }
}

TEST(ConfigParser, DirectoryMeansItsConfigFile) {
  EXPECT_TRUE(parse_file(fixture_dir("qwen3_moe")) == fixture_spec("qwen3_moe"));
}

TEST(ConfigParser, Qwen3Moe) {
  const ModelSpec spec = fixture_spec("qwen3_moe");
  EXPECT_EQ(spec.family, Family::kQwen3Moe);
  EXPECT_EQ(spec.architecture, "Qwen3MoeForCausalLM");
  EXPECT_EQ(spec.hidden_size, 64);
  EXPECT_EQ(spec.num_layers, 3);
  EXPECT_EQ(spec.attention.kind, AttentionKind::kGqa);
  EXPECT_EQ(spec.attention.num_heads, 8);
  EXPECT_EQ(spec.attention.num_kv_heads, 2);
  EXPECT_EQ(spec.attention.head_dim, 16);
  EXPECT_TRUE(spec.attention.qk_norm);
  EXPECT_FALSE(spec.attention.qkv_bias);
  EXPECT_FLOAT_EQ(spec.attention.softmax_scale, 0.25F);
  EXPECT_EQ(spec.rotary.rotary_dim, 16);
  EXPECT_EQ(spec.rotary.theta, 1e6);
  EXPECT_FALSE(spec.rotary.interleaved);
  EXPECT_EQ(spec.moe.num_experts, 8);
  EXPECT_EQ(spec.moe.expert_intermediate_size, 32);
  EXPECT_EQ(spec.moe.router.topk, 2);
  EXPECT_EQ(spec.moe.router.score, RouterScore::kSoftmax);
  EXPECT_TRUE(spec.moe.router.renormalize);
  for (const LayerSpec& layer : spec.layers) {
    EXPECT_TRUE(layer.is_moe);
    EXPECT_EQ(layer.sliding_window, 0);
  }
}

TEST(ConfigParser, Mixtral) {
  const ModelSpec spec = fixture_spec("mixtral");
  EXPECT_EQ(spec.family, Family::kMixtral);
  EXPECT_EQ(spec.attention.head_dim, 8);  // hidden / heads: head_dim is null
  EXPECT_FALSE(spec.attention.qk_norm);
  EXPECT_EQ(spec.moe.expert_intermediate_size, 96);
  EXPECT_TRUE(spec.moe.router.renormalize);
  EXPECT_FLOAT_EQ(spec.rms_norm_eps, 1e-5F);
}

TEST(ConfigParser, DeepseekV2) {
  const ModelSpec spec = fixture_spec("deepseek_v2");
  EXPECT_EQ(spec.family, Family::kDeepseekV2);
  EXPECT_EQ(spec.attention.kind, AttentionKind::kMla);
  EXPECT_EQ(spec.attention.q_lora_rank, 0);
  EXPECT_EQ(spec.attention.cache_k_dim(), 40);
  EXPECT_EQ(spec.attention.cache_v_dim(), 32);
  EXPECT_FLOAT_EQ(spec.attention.softmax_scale, 1.0F / std::sqrt(24.0F));
  EXPECT_TRUE(spec.rotary.interleaved);
  EXPECT_EQ(spec.rotary.rotary_dim, 8);
  EXPECT_FALSE(spec.layers[0].is_moe);
  EXPECT_TRUE(spec.layers[1].is_moe);
  EXPECT_EQ(spec.dense_intermediate_size, 128);
  EXPECT_EQ(spec.moe.shared_intermediate_size, 64);
  EXPECT_EQ(spec.moe.router.topk, 3);
  EXPECT_FALSE(spec.moe.router.renormalize);
  EXPECT_EQ(spec.moe.router.group_score, RouterGroupScore::kNone);
}

TEST(ConfigParser, DeepseekV3) {
  const ModelSpec spec = fixture_spec("deepseek_v3");
  EXPECT_EQ(spec.family, Family::kDeepseekV3);
  EXPECT_EQ(spec.attention.q_lora_rank, 48);
  EXPECT_EQ(spec.num_nextn_layers, 1);
  const RouterSpec& router = spec.moe.router;
  EXPECT_EQ(router.score, RouterScore::kSigmoid);
  EXPECT_TRUE(router.correction_bias);
  EXPECT_TRUE(router.renormalize);
  EXPECT_EQ(router.group_score, RouterGroupScore::kTop2Sum);
  EXPECT_EQ(router.num_groups, 4);
  EXPECT_EQ(router.topk_groups, 2);
  EXPECT_FLOAT_EQ(router.scaling, 2.5F);
  EXPECT_EQ(spec.rotary.scaling, RotaryScaling::kYarn);
  EXPECT_EQ(spec.rotary.factor, 4.0);
  EXPECT_EQ(spec.rotary.original_max_position, 2048);
  EXPECT_TRUE(spec.rotary.truncate);
  // mscale and mscale_all_dim are equal: they cancel on cos and sin and square on the softmax.
  EXPECT_DOUBLE_EQ(spec.rotary.cos_sin_scale, 1.0);
  const double mscale = 0.1 * std::log(4.0) + 1.0;
  EXPECT_NEAR(spec.attention.softmax_scale, mscale * mscale / std::sqrt(24.0), 1e-7);
}

TEST(ConfigParser, GptOss) {
  const ModelSpec spec = fixture_spec("gpt_oss");
  EXPECT_EQ(spec.family, Family::kGptOss);
  EXPECT_TRUE(spec.attention.sinks);
  EXPECT_TRUE(spec.attention.qkv_bias);
  EXPECT_TRUE(spec.attention.output_bias);
  EXPECT_TRUE(spec.moe.expert_bias);
  EXPECT_TRUE(spec.moe.router.router_bias);
  EXPECT_TRUE(spec.moe.router.renormalize);
  EXPECT_EQ(spec.moe.activation, Activation::kClampedSwiglu);
  EXPECT_FALSE(spec.rotary.truncate);
  EXPECT_NEAR(spec.rotary.cos_sin_scale, 0.1 * std::log(8.0) + 1.0, 1e-12);
  EXPECT_FLOAT_EQ(spec.attention.softmax_scale, 0.25F);
  EXPECT_EQ(spec.layers[0].sliding_window, 64);
  EXPECT_EQ(spec.layers[1].sliding_window, 0);
  EXPECT_EQ(spec.layers[2].sliding_window, 64);
}

TEST(ConfigParser, Glm4Moe) {
  const ModelSpec spec = fixture_spec("glm4_moe");
  EXPECT_EQ(spec.family, Family::kGlm4Moe);
  EXPECT_EQ(spec.rotary.rotary_dim, 8);
  EXPECT_FALSE(spec.rotary.interleaved);
  EXPECT_TRUE(spec.attention.qkv_bias);
  EXPECT_FALSE(spec.attention.output_bias);
  EXPECT_TRUE(spec.attention.qk_norm);
  EXPECT_EQ(spec.moe.router.score, RouterScore::kSigmoid);
  EXPECT_EQ(spec.moe.shared_intermediate_size, 32);
  EXPECT_FALSE(spec.layers[0].is_moe);
}

TEST(ConfigParser, Quantization) {
  const ModelSpec fp8 = fixture_spec("deepseek_v3_fp8");
  EXPECT_EQ(fp8.quantization.kind, Quantization::kFp8Block);
  EXPECT_EQ(fp8.quantization.block_rows, 128);
  EXPECT_EQ(fp8.quantization.block_cols, 128);
  EXPECT_EQ(fixture_spec("gpt_oss_mxfp4").quantization.kind, Quantization::kMxfp4);
  EXPECT_EQ(fixture_spec("gpt_oss").quantization.kind, Quantization::kNone);
}

TEST(ConfigParser, PublishedDeepseekV2Lite) {
  const ModelSpec spec = bundled_spec("deepseek-v2-lite");
  EXPECT_DOUBLE_EQ(spec.rotary.cos_sin_scale, 1.0);
  const double mscale = 0.1 * 0.707 * std::log(40.0) + 1.0;
  EXPECT_NEAR(spec.attention.softmax_scale, mscale * mscale / std::sqrt(192.0), 1e-7);
  EXPECT_EQ(spec.max_position, 163840);
}

TEST(ConfigParser, PublishedKimiK2) {
  const ModelSpec spec = bundled_spec("kimi-k2");
  EXPECT_EQ(spec.family, Family::kDeepseekV3);
  EXPECT_EQ(spec.moe.num_experts, 384);
  EXPECT_EQ(spec.moe.router.group_score, RouterGroupScore::kNone);
  EXPECT_FLOAT_EQ(spec.moe.router.scaling, 2.827F);
  EXPECT_EQ(spec.rotary.beta_fast, 1.0);
  EXPECT_EQ(spec.rotary.theta, 50000.0);
}

TEST(ConfigParser, PublishedGlmStopsAtThreeTokens) {
  EXPECT_EQ(bundled_spec("glm-4.5").eos_token_ids, (std::vector<TokenId>{151329, 151336, 151338}));
  EXPECT_FALSE(bundled_spec("glm-4.5-air").attention.qk_norm);
}

TEST(ConfigParser, MlpOnlyLayersAndSparseStepMakeDenseLayers) {
  std::string text = read_all(fixture_dir("qwen3_moe") / "config.json");
  text.insert(text.find('{') + 1, "\"ignored\": 1,");
  const auto replace = [&text](const std::string& from, const std::string& to) {
    ASSERT_NE(text.find(from), std::string::npos) << from;
    text.replace(text.find(from), from.size(), to);
  };
  replace("\"mlp_only_layers\": []", "\"mlp_only_layers\": [1]");
  replace("\"decoder_sparse_step\": 1", "\"decoder_sparse_step\": 2");
  auto spec = parse_config(text, "config.json");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  for (const LayerSpec& layer : spec->layers) EXPECT_FALSE(layer.is_moe);
  EXPECT_EQ(spec->dense_intermediate_size, 128);
}

TEST(ConfigParser, GenerationConfigNamesTheEndTokens) {
  const ModelSpec spec = fixture_spec("qwen3_moe");
  const ScratchDir dir;
  EXPECT_EQ(*read_eos_token_ids(dir.path(), spec), std::vector<TokenId>{510});
  dir.write("generation_config.json", R"({"eos_token_id": [3, 7], "temperature": 0.6})");
  EXPECT_EQ(*read_eos_token_ids(dir.path(), spec), (std::vector<TokenId>{3, 7}));
  dir.write("generation_config.json", R"({"eos_token_id": null})");
  EXPECT_EQ(*read_eos_token_ids(dir.path(), spec), std::vector<TokenId>{510});
  dir.write("generation_config.json", R"({"eos_token_id": 512})");
  const auto beyond = read_eos_token_ids(dir.path(), spec);
  ASSERT_FALSE(beyond.ok());
  EXPECT_NE(beyond.error().message.find("eos_token_id"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::model
