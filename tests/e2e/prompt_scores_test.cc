// Log probabilities of prompt tokens are those of the logits from which the same tokens would have
// been sampled, however the prompt is cut, spread and computed again.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "e2e/test_model.h"
#include "e2e/test_policies.h"

namespace nanocp::e2e {
namespace {

double log_probability(const std::vector<float>& logits, TokenId token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return logits[static_cast<size_t>(token)] - largest - std::log(sum);
}

// Answers of `first` become the ends of prompts, which are scored.
void expect_scores(const TestModel& model, const RunOptions& options,
                   std::unique_ptr<scheduler::Policy> policy,
                   const std::vector<request::Request>& first,
                   const std::vector<RunOutput>& answers) {
  std::vector<request::Request> scored;
  for (size_t i = 0; i < first.size(); ++i) {
    std::vector<TokenId> prompt = first[i].prompt;
    prompt.insert(prompt.end(), answers[i].tokens.begin(), answers[i].tokens.end());
    scored.push_back(greedy_request(std::move(prompt), 4));
    scored.back().num_prompt_logprobs = 2;
  }
  const auto got = run_requests(model, options, std::move(policy), scored);
  ASSERT_TRUE(got.ok()) << got.error().message;
  for (size_t i = 0; i < first.size(); ++i) {
    const std::vector<TokenScore>& scores = (*got)[i].prompt_scores;
    ASSERT_EQ(scores.size() + 1, scored[i].prompt.size());
    for (size_t k = 0; k < answers[i].tokens.size(); ++k) {
      const TokenScore& score = scores[first[i].prompt.size() + k - 1];
      const TokenId token = answers[i].tokens[k];
      EXPECT_NEAR(score.logprob, log_probability(answers[i].logits[k], token), 1e-3);
      ASSERT_EQ(score.top_logprobs.size(), 2U);
      EXPECT_EQ(score.top_logprobs[0].first, token) << "greedy";
      EXPECT_EQ(score.top_logprobs[0].second, score.logprob);
      EXPECT_LE(score.top_logprobs[1].second, score.logprob);
    }
  }
}

TEST(PromptScores, AreThoseOfTheLogitsBehindEachToken) {
  const TestModel model = load_test_model(fixture_dir("qwen3_moe"), "config.json");
  std::vector<request::Request> first;
  for (const GoldenCase& golden : model.cases) first.push_back(greedy_request(golden.prompt, 12));
  const auto answers = run_requests(model, {}, make_uneven_policy(1), first);
  ASSERT_TRUE(answers.ok()) << answers.error().message;
  expect_scores(model, {}, make_uneven_policy(1), first, *answers);
  expect_scores(model, {.num_instances = 3, .prefill_chunk_tokens = 7}, make_random_policy(3),
                first, *answers);
}

}  // namespace
}  // namespace nanocp::e2e
