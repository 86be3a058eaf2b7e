#include "model/weight_loader.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "model/checkpoint.h"
#include "model/config_parser.h"
#include "model/test_support.h"
#include "model/weight_catalogue.h"
#include "ops/linear.h"

namespace nanocp::model {
namespace {

using tensor::WeightFormat;

ModelSpec spec_of(const std::filesystem::path& dir) {
  auto spec = read_config(dir / "config.json");
  NANOCP_CHECK(spec.ok());
  return *spec;
}

std::shared_ptr<const ModelWeights> load_fixture(const std::string& name,
                                                 const LoadOptions& options = {}) {
  const ModelSpec spec = spec_of(fixture_dir(name));
  auto weights = load_weights(spec, fixture_dir(name), options);
  if (!weights.ok()) ADD_FAILURE() << name << ": " << weights.error().message;
  NANOCP_CHECK(weights.ok());
  return *weights;
}

float at(const LinearWeights& linear, int64_t row, int64_t col) {
  return ops::weight_element(linear.weight, row, col);
}

void expect_shape(const tensor::WeightView& view, int64_t rows, int64_t cols) {
  EXPECT_EQ(view.rows, rows);
  EXPECT_EQ(view.cols, cols);
  EXPECT_FALSE(view.empty());
}

TEST(WeightLoader, FixturesLoadWithoutLeftovers) {
  for (const std::string& name : fixture_names()) {
    std::string note;
    LoadOptions options;
    options.note = [&note](const std::string& text) { note = text; };
    const auto weights = load_fixture(name, options);
    const ModelSpec spec = spec_of(fixture_dir(name));
    EXPECT_EQ(note, "") << name;
    EXPECT_EQ(weights->layers.size(), spec.layers.size());
    EXPECT_EQ(weights->final_norm.size(), static_cast<size_t>(spec.hidden_size));
    expect_shape(weights->embedding, spec.vocab_size, spec.hidden_size);
    expect_shape(weights->lm_head.weight, spec.vocab_size, spec.hidden_size);
    for (size_t i = 0; i < spec.layers.size(); ++i) {
      const LayerWeights& layer = weights->layers[i];
      EXPECT_EQ(layer.experts.size(),
                spec.layers[i].is_moe ? static_cast<size_t>(spec.moe.num_experts) : 0U);
      EXPECT_EQ(layer.dense.gate.weight.empty(), spec.layers[i].is_moe);
    }
  }
}

TEST(WeightLoader, CatalogueNamesWhatFixturesHold) {
  for (const std::string& name : fixture_names()) {
    const auto checkpoint = Checkpoint::open(fixture_dir(name));
    ASSERT_TRUE(checkpoint.ok());
    std::set<std::string> listed;
    for (const CatalogueEntry& entry : list_tensors(spec_of(fixture_dir(name)))) {
      listed.insert(entry.name);
      const StoredTensor* stored = checkpoint->find(entry.name);
      ASSERT_NE(stored, nullptr) << name << ": " << entry.name;
      EXPECT_EQ(stored->shape, entry.shape) << entry.name;
      EXPECT_EQ(stored->type, entry.type) << entry.name;
      EXPECT_EQ(static_cast<int64_t>(stored->bytes.size()), entry.size_bytes) << entry.name;
    }
    EXPECT_EQ(listed.size(), checkpoint->tensors().size()) << name;
  }
}

// Expected values below were decoded from the files by an independent program.
TEST(WeightLoader, Fp8ValuesUseTheScaleOfTheirBlock) {
  const auto weights = load_fixture("qwen3_moe_fp8");
  EXPECT_EQ(weights->layers[0].gqa.q.weight.format, WeightFormat::kFp8Block);
  EXPECT_EQ(weights->embedding.format, WeightFormat::kBf16);
  EXPECT_FLOAT_EQ(at(weights->layers[0].gqa.q, 200, 130), -0.059465679340064526F);
  EXPECT_FLOAT_EQ(at(weights->layers[1].experts[3].down, 255, 127), 0.15883091371506453F);
  EXPECT_FLOAT_EQ(at(weights->layers[1].experts[2].gate, 5, 200), 0.00867135205771774F);
}

TEST(WeightLoader, Fp8LatentUpProjectionIsSplitPerHead) {
  const auto weights = load_fixture("deepseek_v3_fp8");
  const MlaWeights& mla = weights->layers[1].mla;
  ASSERT_EQ(mla.k_up.size(), 4U);
  expect_shape(mla.k_up[3], 64, 32);
  expect_shape(mla.v_up[2], 32, 64);
  EXPECT_EQ(mla.k_up[3].format, WeightFormat::kF32);
  EXPECT_EQ(mla.v_up[2].format, WeightFormat::kFp8Block);
}

TEST(WeightLoader, LatentUpProjectionValues) {
  const auto fp8 = load_fixture("deepseek_v3_fp8");
  EXPECT_FLOAT_EQ(ops::weight_element(fp8->layers[1].mla.k_up[3], 10, 7), -0.064453125F);
  EXPECT_FLOAT_EQ(ops::weight_element(fp8->layers[1].mla.v_up[2], 5, 33), 0.064453125F);
  const auto plain = load_fixture("deepseek_v3");
  EXPECT_EQ(plain->layers[2].mla.k_up[1].format, WeightFormat::kBf16);
  EXPECT_EQ(ops::weight_element(plain->layers[2].mla.k_up[1], 31, 15), -0.1376953125F);
  EXPECT_EQ(ops::weight_element(plain->layers[2].mla.v_up[3], 15, 0), -0.3984375F);
  EXPECT_EQ(plain->layers[1].correction_bias[15], -0.08203125F);
}

TEST(WeightLoader, Mxfp4ExpertsInterleaveGateAndUp) {
  const auto weights = load_fixture("gpt_oss_mxfp4");
  const auto& experts = weights->layers[1].experts;
  EXPECT_EQ(experts[7].gate.weight.format, WeightFormat::kMxfp4);
  expect_shape(experts[7].up.weight, 64, 64);
  EXPECT_EQ(at(experts[7].gate, 9, 40), 0.09375F);
  EXPECT_EQ(at(experts[7].up, 9, 40), 0.03125F);
  EXPECT_EQ(at(experts[7].down, 9, 40), -0.125F);
  EXPECT_EQ(at(experts[0].gate, 63, 63), -0.09375F);
  EXPECT_EQ(at(experts[0].up, 63, 63), 0.09375F);
  EXPECT_EQ(at(experts[0].down, 63, 63), -0.03125F);
}

TEST(WeightLoader, FusedExpertsAreTransposed) {
  for (const int num_threads : {1, 3}) {
    LoadOptions options;
    options.num_threads = num_threads;
    const auto weights = load_fixture("gpt_oss", options);
    const GatedMlpWeights& expert = weights->layers[3].experts[5];
    EXPECT_EQ(at(expert.gate, 17, 33), -0.0810546875F);
    EXPECT_EQ(at(expert.up, 17, 33), 0.2041015625F);
    EXPECT_EQ(at(expert.down, 17, 33), -0.07763671875F);
    EXPECT_EQ(expert.gate.bias[17], 0.10791015625F);
    EXPECT_EQ(expert.up.bias[17], 0.08740234375F);
    EXPECT_EQ(expert.down.bias[17], -0.025390625F);
    EXPECT_EQ(weights->layers[3].router.bias.size(), 8U);
    EXPECT_EQ(weights->layers[3].gqa.sinks.size(), 8U);
  }
}

TEST(WeightLoader, MixtralNumbersItsMatrices) {
  const auto weights = load_fixture("mixtral");
  const GatedMlpWeights& expert = weights->layers[1].experts[7];
  EXPECT_EQ(at(expert.gate, 1, 36), -0.12060546875F);
  EXPECT_EQ(at(expert.down, 1, 4), -0.03759765625F);
  EXPECT_EQ(at(expert.up, 1, 36), 0.023193359375F);
}

TEST(WeightLoader, ReportsProgressUpToTheTotal) {
  int64_t last_done = 0;
  int64_t total = 0;
  LoadOptions options;
  options.num_threads = 2;
  options.progress = [&](int64_t done_bytes, int64_t total_bytes) {
    EXPECT_GT(done_bytes, last_done);
    last_done = done_bytes;
    total = total_bytes;
  };
  load_fixture("deepseek_v3", options);
  EXPECT_GT(total, 0);
  EXPECT_EQ(last_done, total);
}

// A fixture in a scratch directory whose safetensors header has `from` replaced by `to`, which
// have equal lengths so that offsets stay.
class AlteredFixture {
 public:
  AlteredFixture(const std::string& name, const std::string& from, const std::string& to) {
    std::string text = read_all(fixture_dir(name) / "model.safetensors");
    NANOCP_CHECK_EQ(from.size(), to.size());
    const size_t place = text.find(from);
    NANOCP_CHECK(place != std::string::npos);
    text.replace(place, from.size(), to);
    dir_.write("model.safetensors", text);
    spec_ = spec_of(fixture_dir(name));
  }
  Result<std::shared_ptr<const ModelWeights>> load(const LoadOptions& options = {}) const {
    return load_weights(spec_, dir_.path(), options);
  }

 private:
  ScratchDir dir_;
  ModelSpec spec_;
};

struct BadTensor {
  const char* fixture;
  const char* from;
  const char* to;
  const char* wanted;
};

TEST(WeightLoader, RefusesMissingAndMisshapenTensors) {
  const BadTensor cases[] = {
      {"qwen3_moe", "model.norm.weight", "model.norm.weighs",
       "\"model.norm.weight\" of shape [64] is missing"},
      {"qwen3_moe", "experts.3.up_proj", "experts.9.up_proj", "experts.3.up_proj.weight\""},
      {"qwen3_moe", "[8,64]", "[64,8]", "has shape [64, 8], but the config asks for [8, 64]"},
      {"qwen3_moe", "lm_head.weight\":{\"dtype\":\"BF16\"", "lm_head.weight\":{\"dtype\":\"I16\" ",
       "has type I16; wanted BF16 or F16 or F32"},
      {"qwen3_moe_fp8", "q_proj.weight_scale_inv", "q_proj.weight_scale_xxx",
       "q_proj.weight_scale_inv\" of shape [2, 2] is missing"},
      {"gpt_oss_mxfp4", "down_proj_scales", "down_proj_scalez", "down_proj_scales\""},
      {"gpt_oss_mxfp4", "down_proj_bias", "down_proj_biaz", "down_proj_bias\""},
      {"deepseek_v3", "e_score_correction_bias", "e_score_correction_biaz",
       "e_score_correction_bias\" of shape [16]"},
  };
  for (const BadTensor& bad : cases) {
    const auto weights = AlteredFixture(bad.fixture, bad.from, bad.to).load();
    ASSERT_FALSE(weights.ok()) << bad.from;
    EXPECT_NE(weights.error().message.find(bad.wanted), std::string::npos)
        << weights.error().message;
    EXPECT_EQ(weights.error().message.find('\n'), std::string::npos);
  }
}

TEST(WeightLoader, Fp8WithoutQuantizationConfigIsRefused) {
  ModelSpec spec = spec_of(fixture_dir("qwen3_moe_fp8"));
  spec.quantization = {};
  const auto weights = load_weights(spec, fixture_dir("qwen3_moe_fp8"), {});
  ASSERT_FALSE(weights.ok());
  EXPECT_NE(weights.error().message.find("F8_E4M3"), std::string::npos) << weights.error().message;
}

TEST(WeightLoader, SkipsExtraTensorsWithOneNote) {
  ModelSpec spec = spec_of(fixture_dir("deepseek_v3"));
  spec.num_layers = 2;  // as if layer 2 were the multi-token-prediction layer
  spec.layers.resize(2);
  std::vector<std::string> notes;
  LoadOptions options;
  options.note = [&notes](const std::string& text) { notes.push_back(text); };
  const auto weights = load_weights(spec, fixture_dir("deepseek_v3"), options);
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  ASSERT_EQ(notes.size(), 1U);
  EXPECT_NE(notes[0].find("multi-token-prediction layers (model.layers.2 and up)"),
            std::string::npos);
  EXPECT_EQ(notes[0].find("such as"), std::string::npos);
  spec.moe.router.correction_bias = false;
  ASSERT_TRUE(load_weights(spec, fixture_dir("deepseek_v3"), options).ok());
  EXPECT_NE(notes[1].find("such as \"model.layers.1.mlp.gate.e_score_correction_bias\""),
            std::string::npos);
}

TEST(WeightLoader, TiedEmbeddingsServeAsOutputProjection) {
  ModelSpec spec = spec_of(fixture_dir("qwen3_moe"));
  spec.tie_word_embeddings = true;
  const auto weights = load_weights(spec, fixture_dir("qwen3_moe"), {});
  ASSERT_TRUE(weights.ok()) << weights.error().message;
  EXPECT_EQ((*weights)->lm_head.weight.data, (*weights)->embedding.data);
}

TEST(WeightLoader, RefusesTruncatedFiles) {
  const std::string whole = read_all(fixture_dir("qwen3_moe") / "model.safetensors");
  const ModelSpec spec = spec_of(fixture_dir("qwen3_moe"));
  const size_t header_end = 8 + static_cast<unsigned char>(whole[0]) +
                            256 * static_cast<size_t>(static_cast<unsigned char>(whole[1]));
  const ScratchDir dir;
  for (const size_t size : {size_t{0}, size_t{7}, size_t{8}, header_end - 1, header_end,
                            header_end + 1, whole.size() / 2, whole.size() - 1}) {
    dir.write("model.safetensors", whole.substr(0, size));
    const auto weights = load_weights(spec, dir.path(), {});
    ASSERT_FALSE(weights.ok()) << size;
    EXPECT_NE(weights.error().message.find("model.safetensors"), std::string::npos);
    EXPECT_NE(weights.error().message.find("truncated?"), std::string::npos)
        << weights.error().message;
  }
}

TEST(WeightLoader, UnalignedTensorsAreCopied) {
  // One more byte of header moves every tensor to an odd address.
  std::string text = read_all(fixture_dir("deepseek_v3") / "model.safetensors");
  const size_t header_end = 8 + static_cast<unsigned char>(text[0]) +
                            256 * static_cast<size_t>(static_cast<unsigned char>(text[1]));
  ASSERT_EQ(text[2], 0);
  text.insert(header_end, 1, ' ');
  text[0] = static_cast<char>(text[0] + 1);
  const ScratchDir dir;
  dir.write("model.safetensors", text);
  const auto shifted = load_weights(spec_of(fixture_dir("deepseek_v3")), dir.path(), {});
  ASSERT_TRUE(shifted.ok()) << shifted.error().message;
  const auto plain = load_fixture("deepseek_v3");
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*shifted)->embedding.data) % 2, 0U);
  for (int64_t row = 0; row < 64; ++row) {
    EXPECT_EQ(at((*shifted)->layers[2].mla.o, row, 3), at(plain->layers[2].mla.o, row, 3));
  }
  EXPECT_EQ(ops::weight_element((*shifted)->layers[2].mla.k_up[1], 31, 15), -0.1376953125F);
}

TEST(DummyWeights, FollowTheSpecAndTheSeed) {
  for (const std::string& name : fixture_names()) {
    const ModelSpec spec = spec_of(fixture_dir(name));
    LoadOptions options;
    options.dummy = true;
    const auto first = load_weights(spec, "does-not-exist", options);
    ASSERT_TRUE(first.ok()) << first.error().message;
    options.num_threads = 3;
    const auto again = load_weights(spec, "does-not-exist", options);
    options.dummy_seed = 2;
    const auto other = load_weights(spec, "does-not-exist", options);
    ASSERT_TRUE(again.ok() && other.ok());
    const auto real = load_fixture(name);
    const LinearWeights& down = (*first)->layers.back().experts[0].down;
    EXPECT_EQ(down.weight.format, real->layers.back().experts[0].down.weight.format) << name;
    int num_equal = 0;
    for (int64_t col = 0; col < 32; ++col) {
      EXPECT_EQ(at(down, 7, col), at((*again)->layers.back().experts[0].down, 7, col));
      num_equal += at(down, 7, col) == at((*other)->layers.back().experts[0].down, 7, col);
    }
    EXPECT_LT(num_equal, 32);
  }
}

TEST(DummyWeights, KeepActivationsNearOne) {
  for (const std::string& name : fixture_names()) {
    LoadOptions options;
    options.dummy = true;
    const auto weights = load_weights(spec_of(fixture_dir(name)), "", options);
    ASSERT_TRUE(weights.ok());
    const tensor::WeightView& up = (*weights)->layers.back().experts[1].up.weight;
    double sum_of_squares = 0;
    for (int64_t row = 0; row < up.rows; ++row) {
      for (int64_t col = 0; col < up.cols; ++col) {
        sum_of_squares += std::pow(ops::weight_element(up, row, col), 2);
      }
    }
    const double gain = std::sqrt(sum_of_squares / static_cast<double>(up.rows));
    EXPECT_GT(gain, 0.6) << name;
    EXPECT_LT(gain, 1.6) << name;
    for (const float norm : (*weights)->final_norm) EXPECT_NEAR(norm, 1.06F, 0.07F) << name;
  }
}

TEST(DummyWeights, RefuseAModelLargerThanTheMachine) {
  auto spec = read_config("configs/kimi-k2.json");
  ASSERT_TRUE(spec.ok());
  spec->vocab_size = 1 << 24;
  spec->hidden_size = 1 << 22;
  LoadOptions options;
  options.dummy = true;
  const auto weights = load_weights(*spec, "", options);
  ASSERT_FALSE(weights.ok());
  EXPECT_EQ(weights.error().code, ErrorCode::kResourceExhausted);
}

}  // namespace
}  // namespace nanocp::model
