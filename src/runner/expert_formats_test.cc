// Which form the experts take on a GPU, and what is said when it is not the stored one.
#include "runner/device/expert_formats.h"

#include <gtest/gtest.h>

#include "model/config_parser.h"
#include "model/weight_loader.h"

namespace nanocp::runner {
namespace {

using tensor::WeightFormat;

model::ModelSpec read_spec(const std::string& file) {
  auto spec = model::read_config(file);
  if (!spec.ok()) ADD_FAILURE() << spec.error().message;
  NANOCP_CHECK(spec.ok());
  return *spec;
}

// Weights of a fixture; the views may be changed, the bytes stay those of the file.
struct Loaded {
  model::ModelSpec spec;
  model::ModelWeights weights;
};

Loaded load(const std::string& fixture) {
  const std::string dir = "tests/fixtures/" + fixture;
  Loaded loaded = {read_spec(dir), {}};
  const auto weights = model::load_weights(loaded.spec, dir, {});
  NANOCP_CHECK(weights.ok());
  loaded.weights = **weights;
  return loaded;
}

std::vector<WeightFormat> moe_formats(const model::ModelSpec& spec, const ExpertFormats& formats) {
  std::vector<WeightFormat> result;
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (spec.layers[i].is_moe) {
      result.push_back(formats.layers[i]);
    } else {
      EXPECT_EQ(formats.layers[i], WeightFormat::kBf16);
    }
  }
  return result;
}

TEST(ExpertFormats, StayAsStored) {
  for (const auto& [fixture, format] : {std::pair("qwen3_moe_fp8", WeightFormat::kFp8Block),
                                        {"deepseek_v3_fp8", WeightFormat::kFp8Block},
                                        {"gpt_oss_mxfp4", WeightFormat::kMxfp4}}) {
    const Loaded model = load(fixture);
    for (const auto choice : {ExpertWeightsChoice::kAuto, ExpertWeightsChoice::kStored}) {
      for (const model::ModelWeights* weights :
           {&model.weights, static_cast<const model::ModelWeights*>(nullptr)}) {
        const auto formats = choose_expert_formats(model.spec, weights, choice);
        ASSERT_TRUE(formats.ok()) << formats.error().message;
        for (const WeightFormat found : moe_formats(model.spec, *formats)) EXPECT_EQ(found, format);
        EXPECT_EQ(formats->note, "");
      }
    }
  }
}

TEST(ExpertFormats, AreConvertedOnRequestWithANote) {
  const Loaded model = load("gpt_oss_mxfp4");
  const auto formats =
      choose_expert_formats(model.spec, &model.weights, ExpertWeightsChoice::kBf16);
  ASSERT_TRUE(formats.ok());
  for (const WeightFormat found : moe_formats(model.spec, *formats)) {
    EXPECT_EQ(found, WeightFormat::kBf16);
  }
  EXPECT_EQ(formats->note,
            "experts of 2 layers are converted from mxfp4 to bf16, as --expert-weights bf16 asks");
}

TEST(ExpertFormats, OneLayerThatTheKernelsDoNotReadIsConvertedAlone) {
  Loaded model = load("qwen3_moe_fp8");
  model.weights.layers[1].experts[2].down.weight.block_cols = 16;
  const auto formats =
      choose_expert_formats(model.spec, &model.weights, ExpertWeightsChoice::kAuto);
  ASSERT_TRUE(formats.ok());
  EXPECT_EQ(formats->layers[0], WeightFormat::kFp8Block);
  EXPECT_EQ(formats->layers[1], WeightFormat::kBf16);
  EXPECT_NE(formats->note.find("experts of 1 layer are converted from fp8 to bf16: in layer 1"),
            std::string::npos)
      << formats->note;
  EXPECT_NE(formats->note.find("not 128 x 16 at row 0"), std::string::npos) << formats->note;

  const auto stored =
      choose_expert_formats(model.spec, &model.weights, ExpertWeightsChoice::kStored);
  ASSERT_FALSE(stored.ok());
  EXPECT_EQ(stored.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(stored.error().message.find("--expert-weights stored: layer 1"), std::string::npos);
}

TEST(ExpertFormats, MixedAndWiderTypesAreConverted) {
  Loaded model = load("qwen3_moe_fp8");
  model.weights.layers[0].experts[1].up.weight.format = WeightFormat::kBf16;
  model.weights.layers[1].experts[0].gate.weight.scale_row_offset = 4;
  auto formats = choose_expert_formats(model.spec, &model.weights, ExpertWeightsChoice::kAuto);
  ASSERT_TRUE(formats.ok());
  EXPECT_EQ(formats->layers, (std::vector(2, WeightFormat::kBf16)));
  EXPECT_NE(formats->note.find("stored as fp8 and as bf16"), std::string::npos) << formats->note;

  model::ModelWeights& weights = model.weights;
  for (auto& layer : weights.layers) {
    for (auto& expert : layer.experts) {
      for (auto* linear : {&expert.gate, &expert.up, &expert.down}) {
        linear->weight.format = WeightFormat::kF32;
      }
    }
  }
  formats = choose_expert_formats(model.spec, &weights, ExpertWeightsChoice::kAuto);
  ASSERT_TRUE(formats.ok());
  EXPECT_NE(formats->note.find("from f32 to bf16: in layer 0"), std::string::npos) << formats->note;
}

TEST(ExpertFormats, DummyBlocksThatTheKernelsDoNotReadAreConverted) {
  model::ModelSpec spec = read_spec("configs/deepseek-v3.json");
  spec.quantization.block_rows = 1;
  const auto formats = choose_expert_formats(spec, nullptr, ExpertWeightsChoice::kAuto);
  ASSERT_TRUE(formats.ok());
  EXPECT_EQ(moe_formats(spec, *formats), std::vector(58, WeightFormat::kBf16));
  EXPECT_NE(formats->note.find("experts of 58 layers"), std::string::npos) << formats->note;
  EXPECT_NE(formats->note.find("in layer 3 "), std::string::npos) << formats->note;
}

TEST(DeviceWeightBytes, MatricesAreBf16WhateverTheirStoredForm) {
  const model::ModelSpec stored = read_spec("configs/deepseek-v3.json");
  model::ModelSpec plain = stored;
  plain.quantization.kind = model::Quantization::kNone;
  EXPECT_EQ(replicated_device_bytes(stored), replicated_device_bytes(plain));
  // Next to the checkpoint's bytes vectors take four bytes for two.
  const auto bytes = static_cast<double>(model::count_weight_bytes(plain).replicated);
  EXPECT_NEAR(static_cast<double>(replicated_device_bytes(plain)) / bytes, 1.0, 1e-3);
}

TEST(DeviceWeightBytes, TheLineNamesFormsAndBytes) {
  const model::ModelSpec spec = read_spec("configs/deepseek-v3.json");
  const auto formats = choose_expert_formats(spec, nullptr, ExpertWeightsChoice::kAuto);
  ASSERT_TRUE(formats.ok());
  const model::WeightBytes bytes = {
      .replicated = 34'000'000'000, .experts = 256'000'000'000, .num_experts = 256};
  EXPECT_EQ(describe_weights(spec, *formats, bytes, 8),
            "weights: 66.00 GB on each GPU: experts 32.00 GB as fp8, all else 34.00 GB as bf16 "
            "(its fp8 matrices are converted)");
}

}  // namespace
}  // namespace nanocp::runner
