// Random placements give the logits of the unsplit run.
#include <gtest/gtest.h>

#include "base/random.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"

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

// Compares until a tie makes the continuations differ; returns how many logit rows were compared.
int compare(const RunOutput& split, const RunOutput& whole) {
  int compared = 0;
  for (size_t t = 0; t < whole.tokens.size(); ++t) {
    EXPECT_LE(relative_error(split.logits[t], whole.logits[t]), kTolerance) << "token " << t;
    ++compared;
    if (split.tokens[t] != whole.tokens[t]) break;
  }
  return compared;
}

class RandomPlacement : public testing::TestWithParam<std::string> {};

TEST_P(RandomPlacement, GivesTheLogitsOfDegreeOne) {
  const TestModel model = load_test_model(fixture_dir(GetParam()), "config.json");
  const int num_runs = NANOCP_TEST_SCALE >= 1.0 ? 1000 / kRequestsPerRun : 3;
  Random random(2026);
  int compared = 0;
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
    for (size_t i = 0; i < requests.size(); ++i) compared += compare((*split)[i], (*whole)[i]);
    ASSERT_FALSE(HasFailure()) << "run " << run;
  }
  // Ties may end a comparison early, but hardly ever.
  EXPECT_GE(compared, num_runs * kRequestsPerRun * kOutputTokens * 99 / 100);
}

INSTANTIATE_TEST_SUITE_P(Families, RandomPlacement,
                         testing::Values("qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3",
                                         "gpt_oss", "glm4_moe"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace nanocp::e2e
