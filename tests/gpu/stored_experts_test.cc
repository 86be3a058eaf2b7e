// Experts that lie on the GPU as fp8 or mxfp4: the same weights on the CPU, which reads both as
// stored, and on the GPU converted to bf16 give the same logits. Needs a GPU, and the fixtures with
// real head sizes, whose experts are quantised here: NANOCP_LARGE_FIXTURES names their folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "backend/device_info.h"
#include "e2e/quantised_experts.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "runner/device_runner.h"

namespace nanocp::e2e {
namespace {

using runner::ExpertWeightsChoice;
using tensor::WeightFormat;

constexpr double kTolerance = 2e-2;  // of max |logit|, for bf16 activations
constexpr int kMaxRows = 256;

int num_gpus() {
  const auto devices = backend::list_devices();
  return devices.ok() ? static_cast<int>(devices->size()) : 0;
}

struct DeviceRun {
  std::vector<RunOutput> outputs;
  std::string notes;
};

DeviceRun run_on_device(const TestModel& model, int num_instances, ExpertWeightsChoice choice) {
  RunOptions options;
  options.num_instances = num_instances;
  options.max_batched_tokens = kMaxRows;
  DeviceRun result;
  runner::DeviceRunnerOptions device_options;
  device_options.num_instances = num_instances;
  device_options.block_size = options.block_size;
  device_options.num_blocks = options.num_blocks;
  device_options.max_rows = kMaxRows;
  device_options.max_graph_rows = 64;
  device_options.expert_weights = choice;
  device_options.wait_timeout_us = 5'000'000;
  device_options.step_timeout_us = 120'000'000;
  device_options.keep_logits = true;
  device_options.note = [&result](const std::string& line) { result.notes += line + "\n"; };
  const auto runner = runner::create_device_runner(model.spec, model.weights, device_options);
  EXPECT_TRUE(runner.ok()) << runner.error().message;
  if (!runner.ok()) return result;
  std::vector<request::Request> requests;
  for (const GoldenCase& one : model.cases) {
    requests.push_back(greedy_request(one.prompt, static_cast<int>(one.greedy.size()) + 1));
  }
  auto outputs =
      run_requests_on(**runner, model, options, make_uneven_policy(num_instances), requests);
  EXPECT_TRUE(outputs.ok()) << outputs.error().message;
  if (outputs.ok()) result.outputs = std::move(outputs).value();
  return result;
}

// The largest error at the end of the prompts and, where the tokens are the same, of the answers.
double largest_error(const TestModel& model, const std::vector<RunOutput>& outputs) {
  double largest = 0.0;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const GoldenCase& golden = model.cases[i];
    largest = std::max(largest, relative_error(outputs[i].logits.front(), golden.last_logits));
    if (!std::equal(golden.greedy.begin(), golden.greedy.end(), outputs[i].tokens.begin())) {
      continue;
    }
    largest = std::max(largest, relative_error(outputs[i].logits.back(), golden.logits_after));
  }
  return largest;
}

// The largest difference at the end of the prompts.
double largest_difference(const std::vector<RunOutput>& a, const std::vector<RunOutput>& b) {
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, relative_error(a[i].logits.front(), b[i].logits.front()));
  }
  return largest;
}

// Every row goes to every expert: rounding cannot flip a choice, so that all errors are those of
// the products.
TestModel with_all_experts(TestModel model) {
  auto spec = std::make_shared<model::ModelSpec>(*model.spec);
  spec->moe.router.topk = spec->moe.num_experts;
  spec->moe.router.topk_groups = spec->moe.router.num_groups;
  model.spec = std::move(spec);
  return model;
}

class StoredExperts : public testing::TestWithParam<std::tuple<std::string, WeightFormat>> {};

TEST_P(StoredExperts, GiveTheLogitsOfTheCpuAndOfConvertedOnes) {
  const auto& [fixture, format] = GetParam();
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU";
  const char* root = std::getenv("NANOCP_LARGE_FIXTURES");
  const std::string dir = std::string(root != nullptr ? root : ".") + "/" + fixture;
  if (!std::filesystem::exists(dir + "/model.safetensors")) GTEST_SKIP() << "no " << dir;
  TestModel model = quantise_experts(with_all_experts(load_test_model(dir, "config.json")), format);
  // Long prompts tell nothing more about experts, and take the CPU long.
  std::erase_if(model.cases, [](const GoldenCase& one) { return one.prompt.size() > 256; });
  model.cases = cpu_cases(model);
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    const DeviceRun stored = run_on_device(model, gpus, ExpertWeightsChoice::kStored);
    const DeviceRun converted = run_on_device(model, gpus, ExpertWeightsChoice::kBf16);
    ASSERT_EQ(stored.outputs.size(), model.cases.size());
    ASSERT_EQ(converted.outputs.size(), model.cases.size());
    EXPECT_NE(stored.notes.find(std::string(" as ") + tensor::to_string(format)), std::string::npos)
        << stored.notes;
    EXPECT_NE(converted.notes.find("are converted from"), std::string::npos) << converted.notes;
    const double error = largest_error(model, stored.outputs);
    const double difference = largest_difference(stored.outputs, converted.outputs);
    std::printf("%-28s %d GPUs: error %.2e (converted %.2e), difference %.2e\n", model.name.c_str(),
                gpus, error, largest_error(model, converted.outputs), difference);
    EXPECT_LE(error, kTolerance);
    EXPECT_LE(difference, kTolerance);
  }
}

// With real routes rounding flips a choice here and there, and such a row has other experts than on
// the CPU; most rows must not.
TEST_P(StoredExperts, FollowMostRoutesOfTheCpu) {
  const auto& [fixture, format] = GetParam();
  if (num_gpus() == 0) GTEST_SKIP() << "no GPU";
  const char* root = std::getenv("NANOCP_LARGE_FIXTURES");
  const std::string dir = std::string(root != nullptr ? root : ".") + "/" + fixture;
  if (!std::filesystem::exists(dir + "/model.safetensors")) GTEST_SKIP() << "no " << dir;
  TestModel model = quantise_experts(load_test_model(dir, "config.json"), format);
  std::erase_if(model.cases, [](const GoldenCase& one) { return one.prompt.size() > 256; });
  model.cases = cpu_cases(model);
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    const DeviceRun stored = run_on_device(model, gpus, ExpertWeightsChoice::kStored);
    ASSERT_EQ(stored.outputs.size(), model.cases.size());
    std::vector<double> errors;
    for (size_t i = 0; i < model.cases.size(); ++i) {
      errors.push_back(
          relative_error(stored.outputs[i].logits.front(), model.cases[i].last_logits));
    }
    std::sort(errors.begin(), errors.end());
    const double median = errors[errors.size() / 2];
    std::printf("%-28s %d GPUs, real routes: %zu cases, median error %.2e, largest %.2e\n",
                model.name.c_str(), gpus, errors.size(), median, errors.back());
    EXPECT_LE(median, kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, StoredExperts,
    testing::Combine(testing::Values("qwen3_moe_gpu", "deepseek_v3_gpu", "gpt_oss_gpu"),
                     testing::Values(WeightFormat::kFp8Block, WeightFormat::kMxfp4)),
    [](const auto& param) {
      return std::get<0>(param.param) + "_" + tensor::to_string(std::get<1>(param.param));
    });

}  // namespace
}  // namespace nanocp::e2e
