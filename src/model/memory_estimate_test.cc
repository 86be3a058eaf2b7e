#include "model/memory_estimate.h"

#include <gtest/gtest.h>

#include "model/checkpoint.h"
#include "model/config_parser.h"
#include "model/test_support.h"

namespace nanocp::model {
namespace {

ModelSpec bundled(const std::string& name) {
  auto spec = read_config("configs/" + name + ".json");
  if (!spec.ok()) ADD_FAILURE() << spec.error().message;
  NANOCP_CHECK(spec.ok());
  return *spec;
}

struct Published {
  const char* name;
  double parameters;  // as published, without multi-token-prediction layers
  double active;      // likewise, without the embedding table
  int64_t kv_bytes;
};

const Published kPublished[] = {
    {"qwen3-30b-a3b", 30.5e9, 3.04e9, 98'304},
    {"qwen3-235b-a22b", 235.1e9, 21.6e9, 192'512},
    {"mixtral-8x7b", 46.7e9, 12.75e9, 131'072},
    {"deepseek-v2-lite", 15.7e9, 2.45e9, 31'104},
    {"deepseek-v3", 671.0e9, 36.6e9, 70'272},
    {"kimi-k2", 1.026e12, 31.7e9, 70'272},
    {"gpt-oss-20b", 20.9e9, 3.61e9, 49'152},
    {"gpt-oss-120b", 116.8e9, 5.13e9, 73'728},
    {"qwen3-30b-a3b-fp8", 30.5e9, 3.04e9, 98'304},
    {"qwen3-235b-a22b-fp8", 235.1e9, 21.6e9, 192'512},
    {"glm-4.5", 353e9, 31.7e9, 376'832},
    {"glm-4.5-air", 106.9e9, 12.8e9, 188'416},
};

TEST(MemoryEstimate, PublishedModels) {
  for (const Published& published : kPublished) {
    const ModelSpec spec = bundled(published.name);
    const ParameterCount count = count_parameters(spec);
    EXPECT_NEAR(static_cast<double>(count.total) / published.parameters, 1.0, 0.012)
        << published.name << " " << count.total;
    EXPECT_NEAR(static_cast<double>(count.active) / published.active, 1.0, 0.04)
        << published.name << " " << count.active;
    EXPECT_EQ(kv_bytes_per_token(spec), published.kv_bytes) << published.name;
    const int64_t fp8_bytes = kv_bytes_per_token(spec, tensor::KvFormat::kFp8);
    EXPECT_GT(fp8_bytes, published.kv_bytes / 2) << published.name;
    EXPECT_LT(fp8_bytes, published.kv_bytes * 52 / 100) << published.name;
  }
}

TEST(MemoryEstimate, WeightBytesAreThoseOfTheFiles) {
  for (const std::string& name : fixture_names()) {
    auto spec = read_config(fixture_dir(name));
    const auto checkpoint = Checkpoint::open(fixture_dir(name));
    ASSERT_TRUE(spec.ok() && checkpoint.ok());
    int64_t stored = 0;
    for (const auto& [tensor_name, tensor] : checkpoint->tensors()) {
      stored += static_cast<int64_t>(tensor.bytes.size());
    }
    EXPECT_EQ(count_weight_bytes(*spec).total(), stored) << name;
  }
}

TEST(MemoryEstimate, ExpertsAreSharedOutAndTheRestIsReplicated) {
  const ModelSpec spec = bundled("qwen3-30b-a3b");
  const WeightBytes bytes = count_weight_bytes(spec);
  EXPECT_EQ(bytes.per_instance(1), bytes.total());
  EXPECT_EQ(bytes.per_instance(8), bytes.replicated + bytes.experts / 8);
  EXPECT_EQ(bytes.per_instance(3), bytes.replicated + bytes.experts / 128 * 43);
  EXPECT_EQ(bytes.per_instance(1000), bytes.replicated + bytes.experts / 128);
}

TEST(MemoryEstimate, Fp8AndMxfp4TakeTheirStoredSize) {
  const auto bits_per_parameter = [](const std::string& name) {
    const ModelSpec spec = bundled(name);
    return 8.0 * static_cast<double>(count_weight_bytes(spec).total()) /
           static_cast<double>(count_parameters(spec).total);
  };
  EXPECT_NEAR(bits_per_parameter("qwen3-30b-a3b"), 16.0, 1e-9);
  EXPECT_NEAR(bits_per_parameter("deepseek-v3"), 8.05, 0.05);
  EXPECT_NEAR(bits_per_parameter("gpt-oss-120b"), 4.46, 0.1);
}

TEST(MemoryEstimate, LongestRequestGrowsWithDegreeUpToTheModelsPositions) {
  const ModelSpec spec = bundled("qwen3-30b-a3b");
  const InstanceMemory memory{.size_bytes = int64_t{8} << 30, .usable_fraction = 1.0};
  const int64_t per_instance = kv_tokens_per_instance(spec, 16, memory);
  const int64_t free = memory.size_bytes - count_weight_bytes(spec).per_instance(16);
  EXPECT_EQ(per_instance, free / 98'304 / 16 * 16);
  EXPECT_EQ(longest_request_tokens(spec, {.num_instances = 16, .degree = 1}, memory), per_instance);
  EXPECT_EQ(longest_request_tokens(spec, {.num_instances = 16, .degree = 16}, memory), 40'960);
  EXPECT_EQ(kv_tokens_per_instance(spec, 1, memory), 0);
}

}  // namespace
}  // namespace nanocp::model
