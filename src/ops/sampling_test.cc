#include "ops/sampling.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <set>

#include "base/random.h"

namespace nanocp::ops {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

struct History {
  std::vector<TokenId> prompt;
  std::vector<TokenId> output;
};

// A copy is sampled, so that tests can use the logits again.
SampledChoice sample_copy(std::vector<float> logits, const SamplingParams& params,
                          uint64_t random_bits = 0, const History& history = {}) {
  return sample(logits, params, {history.prompt, history.output}, random_bits);
}

std::vector<float> random_logits(Random& random, size_t size, double scale) {
  std::vector<float> logits(size);
  for (float& logit : logits) logit = static_cast<float>((random.uniform() - 0.5) * scale);
  return logits;
}

// Everything in the plainest form: the probability of each token.
std::vector<double> naive_probabilities(const std::vector<float>& raw, const SamplingParams& params,
                                        const History& history) {
  std::vector<double> logits(raw.begin(), raw.end());
  for (const auto& [token, bias] : params.logit_bias) logits[token] += bias;
  for (const TokenId token : params.forbidden_tokens) logits[token] = -kInf;
  std::set<TokenId> all(history.prompt.begin(), history.prompt.end());
  all.insert(history.output.begin(), history.output.end());
  for (const TokenId token : all) {
    logits[token] = logits[token] > 0 ? logits[token] / params.repetition_penalty
                                      : logits[token] * params.repetition_penalty;
  }
  for (size_t i = 0; i < logits.size(); ++i) {
    const auto count = std::count(history.output.begin(), history.output.end(), i);
    logits[i] -= static_cast<double>(count) * params.frequency_penalty;
    if (count > 0) logits[i] -= params.presence_penalty;
  }
  for (double& logit : logits) logit /= params.temperature;

  const auto softmax = [&] {
    const double top = *std::max_element(logits.begin(), logits.end());
    std::vector<double> p(logits.size());
    double total = 0;
    for (size_t i = 0; i < p.size(); ++i) total += p[i] = std::exp(logits[i] - top);
    for (double& value : p) value /= total;
    return p;
  };
  std::vector<double> p = softmax();
  const double p_max = *std::max_element(p.begin(), p.end());
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] < params.min_p * p_max) logits[i] = -kInf;
  }
  std::vector<size_t> order(logits.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return logits[a] > logits[b]; });
  for (size_t i = 0; i < order.size(); ++i) {
    if (params.top_k > 0 && i >= static_cast<size_t>(params.top_k)) logits[order[i]] = -kInf;
  }
  p = softmax();
  double covered = 0;
  for (const size_t token : order) {
    if (covered >= params.top_p) logits[token] = -kInf;
    covered += p[token];
  }
  return softmax();
}

void expect_distribution(const std::vector<float>& logits, const SamplingParams& params,
                         const History& history = {}) {
  constexpr int kDraws = 40000;
  const std::vector<double> expected = naive_probabilities(logits, params, history);
  std::vector<int> counts(logits.size(), 0);
  for (int i = 0; i < kDraws; ++i) {
    const uint64_t bits = counter_random(params.seed, static_cast<uint64_t>(i));
    ++counts[static_cast<size_t>(sample_copy(logits, params, bits, history).token)];
  }
  for (size_t token = 0; token < counts.size(); ++token) {
    if (expected[token] == 0.0) {
      EXPECT_EQ(counts[token], 0) << token;
      continue;
    }
    const double mean = kDraws * expected[token];
    const double sigma = std::sqrt(mean * (1 - expected[token]));
    EXPECT_NEAR(counts[token], mean, 4.5 * sigma + 1e-6) << token;
  }
}

TEST(Sampling, ScoresATokenOfThePrompt) {
  std::vector<float> logits = {1.0F, 3.0F, NAN, 2.0F, 3.0F};
  const double total = std::log(std::exp(1.0) + 2 * std::exp(3.0) + std::exp(2.0));
  const TokenScore middle = score(logits, 3, 3);
  EXPECT_NEAR(middle.logprob, 2.0 - total, 1e-6);
  ASSERT_EQ(middle.top_logprobs.size(), 3U);
  EXPECT_EQ(middle.top_logprobs[0].first, 1) << "ties by id";
  EXPECT_EQ(middle.top_logprobs[1].first, 4);
  EXPECT_EQ(middle.top_logprobs[2].first, 3);
  EXPECT_TRUE(score(logits, 0, 0).top_logprobs.empty());
  EXPECT_EQ(score(logits, 0, 10).top_logprobs.size(), 4U) << "one token is impossible";
}

TEST(Sampling, GreedyTakesTheLargestAndOfTiesTheLowestId) {
  EXPECT_EQ(sample_copy({1, 3, 2, 3}, {}).token, 1);
  EXPECT_EQ(sample_copy({-5, -5, -5}, {}).token, 0);
  EXPECT_EQ(sample_copy({1, 3, 2, 4}, {.temperature = 1e-6F}).token, 3);
  EXPECT_EQ(sample_copy({1, 3, 2, 3}, {.temperature = 5.0F, .top_k = 1}, 99).token, 1);
  EXPECT_EQ(sample_copy({1, 3, 2, 3}, {.temperature = 5.0F, .top_p = 1e-6F}, 99).token, 1);
}

TEST(Sampling, DependsOnlyOnItsArguments) {
  Random random(1);
  const std::vector<float> logits = random_logits(random, 1000, 4.0);
  std::set<TokenId> seen;
  for (uint64_t i = 0; i < 50; ++i) {
    const SamplingParams params{.temperature = 1.0F};
    const TokenId token = sample_copy(logits, params, counter_random(3, i)).token;
    EXPECT_EQ(token, sample_copy(logits, params, counter_random(3, i)).token);
    seen.insert(token);
  }
  EXPECT_GT(seen.size(), 30U);
}

TEST(Sampling, DrawIsRobustAgainstRounding) {
  Random random(2);
  int num_changed = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    const std::vector<float> logits = random_logits(random, 500, 2.0);
    std::vector<float> noisy = logits;
    for (float& logit : noisy) logit += static_cast<float>((random.uniform() - 0.5) * 2e-5);
    const SamplingParams params{.temperature = 1.0F};
    const uint64_t bits = counter_random(4, i);
    num_changed +=
        sample_copy(logits, params, bits).token != sample_copy(noisy, params, bits).token;
  }
  EXPECT_LE(num_changed, 3);
}

TEST(Sampling, FollowsTheSoftmax) {
  expect_distribution({0.0F, 1.0F, 2.0F, -1.0F, 0.5F}, {.temperature = 1.0F, .seed = 1});
  expect_distribution({0.0F, 1.0F, 2.0F, -1.0F, 0.5F}, {.temperature = 0.5F, .seed = 2});
  expect_distribution({0.0F, 1.0F, 2.0F, -1.0F, 0.5F}, {.temperature = 3.0F, .seed = 3});
  expect_distribution(std::vector<float>(64, 0.25F), {.temperature = 1.0F, .seed = 4});
}

TEST(Sampling, FollowsTheSoftmaxOfWhatFiltersKeep) {
  Random random(11);
  const std::vector<float> logits = random_logits(random, 20, 6.0);
  expect_distribution(logits, {.temperature = 1.0F, .top_k = 5, .seed = 5});
  expect_distribution(logits, {.temperature = 1.0F, .top_p = 0.7F, .seed = 6});
  expect_distribution(logits, {.temperature = 2.0F, .min_p = 0.2F, .seed = 7});
  expect_distribution(logits,
                      {.temperature = 1.5F, .top_k = 8, .top_p = 0.8F, .min_p = 0.05F, .seed = 8});
}

TEST(Sampling, FollowsTheSoftmaxAfterPenaltiesAndBias) {
  Random random(12);
  const std::vector<float> logits = random_logits(random, 12, 4.0);
  const History history{.prompt = {1, 2, 2, 3}, .output = {3, 4, 4, 4, 5}};
  SamplingParams params{.temperature = 0.8F,
                        .repetition_penalty = 1.4F,
                        .presence_penalty = 0.5F,
                        .frequency_penalty = 0.3F,
                        .seed = 9};
  params.logit_bias = {{0, 1.5F}, {7, -2.0F}};
  params.forbidden_tokens = {6};
  expect_distribution(logits, params, history);
}

TEST(Sampling, KeepsExactlyTheTokensThatTheNaiveFormKeeps) {
  Random random(13);
  for (int round = 0; round < 300; ++round) {
    const size_t size = 1 + random.below(400);
    std::vector<float> logits = random_logits(random, size, 8.0);
    if (random.below(3) == 0) {
      for (float& logit : logits) logit = std::round(logit);  // many ties
    }
    SamplingParams params;
    params.temperature = 0.3F + static_cast<float>(random.uniform()) * 2;
    if (random.below(2) == 0) params.top_k = static_cast<int32_t>(1 + random.below(size));
    if (random.below(2) == 0) params.top_p = 0.05F + static_cast<float>(random.uniform()) * 0.9F;
    if (random.below(2) == 0) params.min_p = static_cast<float>(random.uniform()) * 0.3F;
    const std::vector<double> p = naive_probabilities(logits, params, {});
    for (uint64_t i = 0; i < 50; ++i) {
      const TokenId token = sample_copy(logits, params, counter_random(round, i)).token;
      ASSERT_GT(p[static_cast<size_t>(token)], 0.0) << "round " << round;
    }
  }
}

TEST(Sampling, RepetitionCountsPromptPresenceOnlyOutput) {
  const History prompt_only{.prompt = {1}, .output = {}};
  const History in_output{.prompt = {}, .output = {1}};
  const SamplingParams repetition{.repetition_penalty = 2.0F};
  const SamplingParams presence{.presence_penalty = 1.0F};
  const SamplingParams frequency{.frequency_penalty = 0.6F};
  EXPECT_EQ(sample_copy({1, 1.5F}, repetition, 0, prompt_only).token, 0);
  EXPECT_EQ(sample_copy({1, 1.5F}, repetition, 0, in_output).token, 0);
  EXPECT_EQ(sample_copy({-2.5F, -2}, repetition, 0, prompt_only).token, 0);
  EXPECT_EQ(sample_copy({1, 1.5F}, presence, 0, prompt_only).token, 1);
  EXPECT_EQ(sample_copy({1, 1.5F}, presence, 0, in_output).token, 0);
  EXPECT_EQ(sample_copy({1, 1.5F}, frequency, 0, in_output).token, 0);
  EXPECT_EQ(sample_copy({0, 1.5F}, frequency, 0, {{}, {1, 1}}).token, 1);
  EXPECT_EQ(sample_copy({0, 1.5F}, frequency, 0, {{}, {1, 1, 1}}).token, 0);
  EXPECT_EQ(sample_copy({1, 1.5F}, repetition, 0, {{-1, 2, 1000}, {}}).token, 1);
}

TEST(Sampling, LogprobsAreOfTheRawLogits) {
  SamplingParams params{.num_logprobs = 3};
  params.forbidden_tokens = {2};
  params.logit_bias = {{0, 10.0F}};
  const std::vector<float> logits = {0.0F, 1.0F, 3.0F, 1.0F};
  const double total = std::log(1 + 2 * std::exp(1.0) + std::exp(3.0));
  const SampledChoice choice = sample_copy(logits, params);
  EXPECT_EQ(choice.token, 0);
  EXPECT_NEAR(choice.logprob, 0.0 - total, 1e-6);
  ASSERT_EQ(choice.top_logprobs.size(), 3U);
  EXPECT_EQ(choice.top_logprobs[0].first, 2);
  EXPECT_EQ(choice.top_logprobs[1].first, 1);
  EXPECT_EQ(choice.top_logprobs[2].first, 3);
  EXPECT_NEAR(choice.top_logprobs[0].second, 3.0 - total, 1e-6);
  params.num_logprobs = 0;
  EXPECT_TRUE(sample_copy(logits, params).top_logprobs.empty());
  EXPECT_NEAR(sample_copy(logits, params).logprob, 0.0 - total, 1e-6);
  params.num_logprobs = 100;
  EXPECT_EQ(sample_copy(logits, params).top_logprobs.size(), 4U);
}

std::shared_ptr<const TokenMask> mask_of(std::initializer_list<TokenId> tokens, size_t words) {
  auto mask = std::make_shared<TokenMask>(words, 0);
  for (const TokenId token : tokens) {
    mask->at(static_cast<size_t>(token) / 32) |= 1U << (static_cast<uint32_t>(token) % 32);
  }
  return mask;
}

TEST(Sampling, OnlyAllowedTokensAreChosen) {
  SamplingParams params{.temperature = 1.0F, .seed = 10};
  params.allowed_tokens = mask_of({1, 40, 69}, 3);
  std::vector<float> logits(70, 9.0F);
  logits[1] = 0.0F;
  logits[40] = 1.0F;
  logits[69] = 0.5F;
  std::vector<float> masked(70, -kInf);
  for (const size_t token : {1U, 40U, 69U}) masked[token] = logits[token];
  SamplingParams unmasked = params;
  unmasked.allowed_tokens = nullptr;
  for (uint64_t i = 0; i < 2000; ++i) {
    const uint64_t bits = counter_random(10, i);
    ASSERT_EQ(sample_copy(logits, params, bits).token, sample_copy(masked, unmasked, bits).token);
  }
  params.temperature = 0.0F;
  EXPECT_EQ(sample_copy(logits, params).token, 40);
  params.logit_bias = {{1, 5.0F}, {2, 100.0F}};
  EXPECT_EQ(sample_copy(logits, params).token, 1);
  // Tokens beyond the mask are not allowed; nor is one that nobody may sample.
  params.logit_bias.clear();
  params.allowed_tokens = mask_of({1, 4}, 1);
  EXPECT_EQ(sample_copy(logits, params).token, 4);
  params.forbidden_tokens = {4};
  EXPECT_EQ(sample_copy(logits, params).token, 1);
  EXPECT_EQ(sample_copy(std::vector<float>(70, kNan), params).token, 1);
}

TEST(Sampling, LogprobsAreAmongTheAllowedTokens) {
  SamplingParams params{.num_logprobs = 3};
  params.allowed_tokens = mask_of({0, 2}, 1);
  const SampledChoice choice = sample_copy({1.0F, 7.0F, 2.0F, 5.0F}, params);
  const double total = std::log(std::exp(1.0) + std::exp(2.0));
  EXPECT_EQ(choice.token, 2);
  EXPECT_NEAR(choice.logprob, 2.0 - total, 1e-6);
  ASSERT_EQ(choice.top_logprobs.size(), 2U);
  EXPECT_EQ(choice.top_logprobs[1].first, 0);
  EXPECT_NEAR(choice.top_logprobs[1].second, 1.0 - total, 1e-6);
}

TEST(Sampling, BrokenLogitsHaveADefinedResult) {
  EXPECT_EQ(sample_copy({kNan, 1, 2}, {}).token, 2);
  EXPECT_EQ(sample_copy({1, kInf, kInf}, {}).token, 1);
  EXPECT_EQ(sample_copy({1, kInf, 0}, {.temperature = 1.0F}, 5).token, 1);
  EXPECT_EQ(sample_copy({-kInf, -kInf, -3}, {.temperature = 1.0F}, 5).token, 2);
  EXPECT_EQ(sample_copy({kNan, kNan}, {.temperature = 1.0F}, 5).token, 0);

  SamplingParams params{.temperature = 1.0F, .num_logprobs = 2};
  params.forbidden_tokens = {1, 0, 0};
  const SampledChoice choice = sample_copy({kNan, kNan, kNan}, params, 5);
  EXPECT_EQ(choice.token, 2);
  EXPECT_EQ(choice.logprob, -kInf);
  EXPECT_EQ(sample_copy({1, 2, 0}, params, 5).token, 2);
  params.forbidden_tokens = {0, 1};
  EXPECT_EQ(sample_copy({1, 2}, params, 5).token, 0);

  const float largest = std::numeric_limits<float>::max();
  const SamplingParams extreme{.temperature = 0.01F, .repetition_penalty = 0.1F};
  EXPECT_EQ(sample_copy({largest, 0, -largest}, extreme, 5, {{0, 2}, {}}).token, 0);
}

}  // namespace
}  // namespace nanocp::ops
