// Random placements give the logits of the unsplit run.
#include <gtest/gtest.h>

#include "base/random.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "ops/linear.h"

namespace nanocp::e2e {
namespace {

constexpr double kTolerance = 1e-4;  // of max |logit|
constexpr int kRequestsPerRun = 20;
constexpr int kOutputTokens = 6;

std::vector<request::Request> random_requests(const TestModel& model, Random& random) {
  std::vector<request::Request> requests;
  for (int i = 0; i < kRequestsPerRun; ++i) {
    std::vector<TokenId> prompt(static_cast<size_t>(random.between(1, 90)));
    for (TokenId& token : prompt) {
      token = static_cast<TokenId>(random.below(static_cast<uint64_t>(model.spec->vocab_size)));
    }
    requests.push_back(greedy_request(std::move(prompt), kOutputTokens));
  }
  return requests;
}

// Compares until a tied greedy choice makes the continuations differ.
bool equal(const RunOutput& split, const RunOutput& whole) {
  for (size_t t = 0; t < whole.tokens.size(); ++t) {
    if (relative_error(split.logits[t], whole.logits[t]) > kTolerance) return false;
    if (split.tokens[t] != whole.tokens[t]) break;
  }
  return true;
}

// The model with every embedding value off by up to one part in five million.
TestModel perturbed(const TestModel& model, uint64_t seed) {
  Random random(seed);
  const tensor::WeightView& embedding = model.weights->embedding;
  auto values = std::make_shared<std::vector<float>>();
  for (int64_t row = 0; row < embedding.rows; ++row) {
    for (int64_t col = 0; col < embedding.cols; ++col) {
      const auto factor = static_cast<float>(1.0 + (random.uniform() - 0.5) * 4e-7);
      values->push_back(ops::weight_element(embedding, row, col) * factor);
    }
  }
  auto weights = std::make_shared<model::ModelWeights>(*model.weights);
  weights->embedding = {.format = tensor::WeightFormat::kF32,
                        .data = values->data(),
                        .rows = embedding.rows,
                        .cols = embedding.cols,
                        .stride_bytes = embedding.cols * 4};
  weights->owned.push_back(values);
  TestModel result = model;
  result.weights = weights;
  return result;
}

// Where two experts score alike, the last bit decides the routing and with it the logits, split or
// not. The split run is right then if an unsplit run with other roundings gives what it gave.
bool equals_a_perturbed_unsplit_run(const TestModel& model, const request::Request& request,
                                    const RunOutput& split) {
  for (uint64_t seed = 0; seed < 40; ++seed) {
    auto whole = run_requests(perturbed(model, seed), {}, make_uneven_policy(1), {request});
    if (whole.ok() && equal(split, (*whole)[0])) return true;
  }
  return false;
}

class RandomPlacement : public testing::TestWithParam<std::string> {};

TEST_P(RandomPlacement, GivesTheLogitsOfDegreeOne) {
  const TestModel model = load_test_model(fixture_dir(GetParam()), "config.json");
  const int num_runs = NANOCP_TEST_SCALE >= 1.0 ? 1000 / kRequestsPerRun : 3;
  Random random(2026);
  int num_ties = 0;
  for (int run = 0; run < num_runs; ++run) {
    const auto requests = random_requests(model, random);
    RunOptions options = {.num_instances = 1, .block_size = 16};
    auto whole = run_requests(model, options, make_uneven_policy(1), requests);
    ASSERT_TRUE(whole.ok()) << whole.error().message;
    options.num_instances = static_cast<int>(random.between(2, 8));
    options.block_size = static_cast<int>(random.between(1, 3)) * 4;
    options.prefill_chunk_tokens = static_cast<int>(random.between(0, 40));
    auto split = run_requests(model, options, make_random_policy(random.next()), requests);
    ASSERT_TRUE(split.ok()) << split.error().message;
    for (size_t i = 0; i < requests.size(); ++i) {
      if (equal((*split)[i], (*whole)[i])) continue;
      ++num_ties;
      ASSERT_TRUE(equals_a_perturbed_unsplit_run(model, requests[i], (*split)[i]))
          << "run " << run << " request " << i;
    }
  }
  EXPECT_LE(num_ties, 3) << "of " << num_runs * kRequestsPerRun << " requests";
}

INSTANTIATE_TEST_SUITE_P(Families, RandomPlacement,
                         testing::Values("qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3",
                                         "gpt_oss", "glm4_moe"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace nanocp::e2e
