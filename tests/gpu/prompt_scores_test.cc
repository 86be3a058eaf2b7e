// Log probabilities of prompt tokens on GPUs, against golden logits of an independent
// implementation: whatever the number of GPUs and how the prompt is cut and spread, the same bits
// with graphs and without. Needs a GPU, and the fixtures with real head sizes:
// NANOCP_LARGE_FIXTURES names their folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "gpu/large_fixture.h"
#include "runner/device_runner.h"

namespace nanocp::e2e {
namespace {

constexpr double kTolerance = 2e-2;  // of max |logit|, for bf16 activations

double log_probability(const std::vector<float>& logits, TokenId token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return logits[static_cast<size_t>(token)] - largest - std::log(sum);
}

TokenId best_of(const std::vector<float>& logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// A token's logit and the logarithm of the sum are off by so much each, at most.
double tolerance_of(const std::vector<float>& logits) {
  double largest = 0.0;
  for (const float logit : logits) largest = std::max(largest, std::abs(double{logit}));
  return 2 * kTolerance * largest;
}

// Prompt, answer and the token that would have come next, all of them scored.
std::vector<request::Request> scored_requests(const TestModel& model) {
  std::vector<request::Request> requests;
  for (const GoldenCase& golden : model.cases) {
    std::vector<TokenId> prompt = golden.prompt;
    prompt.insert(prompt.end(), golden.greedy.begin(), golden.greedy.end());
    prompt.push_back(best_of(golden.logits_after));
    requests.push_back(greedy_request(std::move(prompt), 2));
    requests.back().num_prompt_logprobs = 2;
  }
  return requests;
}

// Largest difference of the scores behind the prompt and behind the answer, as part of what is
// allowed.
double check_scores(const TestModel& model, const std::vector<RunOutput>& outputs,
                    const std::string& what) {
  double largest = 0.0;
  for (size_t i = 0; i < model.cases.size(); ++i) {
    const GoldenCase& golden = model.cases[i];
    const std::vector<TokenScore>& scores = outputs[i].prompt_scores;
    EXPECT_EQ(scores.size(), golden.prompt.size() + golden.greedy.size()) << what << " case " << i;
    if (scores.size() != golden.prompt.size() + golden.greedy.size()) continue;
    for (const TokenScore& score : scores) {
      EXPECT_TRUE(std::isfinite(score.logprob) && score.logprob <= 0.0F) << what << " case " << i;
      EXPECT_EQ(score.top_logprobs.size(), 2U) << what << " case " << i;
    }
    const auto compare = [&](const TokenScore& score, const std::vector<float>& logits,
                             TokenId token) {
      const double error = std::abs(score.logprob - log_probability(logits, token));
      EXPECT_LE(error, tolerance_of(logits)) << what << " case " << i;
      largest = std::max(largest, error / tolerance_of(logits));
    };
    compare(scores[golden.prompt.size() - 1], golden.last_logits, golden.greedy[0]);
    compare(scores.back(), golden.logits_after, best_of(golden.logits_after));
  }
  return largest;
}

class DevicePromptScores : public LargeFixture {
 protected:
  std::unique_ptr<runner::DeviceRunner> make_runner(int gpus, bool use_graphs) const {
    runner::DeviceRunnerOptions options;
    options.num_instances = gpus;
    options.block_size = 16;
    options.num_blocks = 1024;
    options.max_rows = 256;
    options.max_graph_rows = 64;
    options.use_graphs = use_graphs;
    options.wait_timeout_us = 5'000'000;
    options.step_timeout_us = 120'000'000;
    auto runner = runner::create_device_runner(model_.spec, model_.weights, options);
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return runner.ok() ? std::move(runner).value() : nullptr;
  }
};

TEST_P(DevicePromptScores, FollowTheGoldenLogitsWithGraphsAndWithout) {
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    const auto graphs = make_runner(gpus, true);
    const auto eager = make_runner(gpus, false);
    ASSERT_TRUE(graphs != nullptr && eager != nullptr);
    for (int degree = 1; degree <= gpus; ++degree) {
      for (const int chunk : {0, 7}) {
        RunOptions options;
        options.num_instances = gpus;
        options.max_batched_tokens = 256;
        options.prefill_chunk_tokens = chunk;
        const std::string what = model_.name + ", " + std::to_string(gpus) + " GPUs, degree " +
                                 std::to_string(degree) + ", chunk " + std::to_string(chunk);
        const auto requests = scored_requests(model_);
        const auto with =
            run_requests_on(*graphs, model_, options, make_uneven_policy(degree), requests);
        const auto without =
            run_requests_on(*eager, model_, options, make_uneven_policy(degree), requests);
        ASSERT_TRUE(with.ok()) << with.error().message;
        ASSERT_TRUE(without.ok()) << without.error().message;
        std::printf("%-40s prompt scores: %.2f of what is allowed\n", what.c_str(),
                    check_scores(model_, *with, what));
        for (size_t i = 0; i < requests.size(); ++i) {
          ASSERT_EQ((*with)[i].prompt_scores.size(), (*without)[i].prompt_scores.size()) << what;
          for (size_t k = 0; k < (*with)[i].prompt_scores.size(); ++k) {
            EXPECT_EQ((*with)[i].prompt_scores[k].logprob, (*without)[i].prompt_scores[k].logprob)
                << what << " case " << i << " token " << k;
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, DevicePromptScores,
                         testing::Values("qwen3_moe_gpu", "deepseek_v3_gpu", "gpt_oss_gpu"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace nanocp::e2e
