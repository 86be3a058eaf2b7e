// The same request and seed give the same tokens whatever the policy, the number of instances, the
// company and the pressure on KV memory.
#include <gtest/gtest.h>

#include "base/random.h"
#include "e2e/ahead_runner.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "runner/cpu_runner.h"

namespace nanocp::e2e {
namespace {

std::vector<request::Request> sampled_requests(int32_t vocab_size) {
  Random random(5);
  std::vector<request::Request> requests;
  for (int i = 0; i < 16; ++i) {
    std::vector<TokenId> prompt(static_cast<size_t>(random.between(1, 120)));
    for (TokenId& token : prompt) {
      token = static_cast<TokenId>(random.below(static_cast<uint64_t>(vocab_size)));
    }
    request::Request request = greedy_request(std::move(prompt), 24);
    request.sampling.seed = static_cast<uint64_t>(i);
    request.sampling.temperature = i % 4 == 0 ? 0.0F : 0.8F;
    if (i % 4 == 1) request.sampling.top_p = 0.9F;
    if (i % 4 == 2) request.sampling.top_k = 20;
    if (i % 4 == 3) request.sampling.min_p = 0.02F;
    request.sampling.repetition_penalty = i % 3 == 0 ? 1.2F : 1.0F;
    request.sampling.presence_penalty = i % 3 == 1 ? 0.5F : 0.0F;
    request.sampling.frequency_penalty = i % 3 == 2 ? 0.3F : 0.0F;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::unique_ptr<scheduler::Policy> named_policy(const char* name,
                                                const scheduler::PolicyOptions& options) {
  auto policy = scheduler::make_policy(name, options);
  EXPECT_TRUE(policy.ok()) << policy.error().message;
  return std::move(policy).value();
}

void expect_same_tokens(const std::vector<RunOutput>& got, const std::vector<RunOutput>& want,
                        const std::string& what) {
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(got[i].tokens, want[i].tokens) << what << " request " << i;
  }
}

TEST(SameTokens, UnderEveryPolicyAndNumberOfInstances) {
  const TestModel model = load_test_model(fixture_dir("qwen3_moe"), "config.json");
  const auto requests = sampled_requests(model.spec->vocab_size);
  const auto want = run_requests(model, {}, make_uneven_policy(1), requests);
  ASSERT_TRUE(want.ok()) << want.error().message;
  for (const int instances : {2, 5, 8}) {
    scheduler::PolicyOptions options = {.num_instances = instances, .degree = 2};
    options.threshold_tokens = 50;
    options.min_tokens_per_shard = 32;
    for (const char* name : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
      const auto got =
          run_requests(model, {.num_instances = instances}, named_policy(name, options), requests);
      ASSERT_TRUE(got.ok()) << got.error().message;
      expect_same_tokens(*got, *want, name + std::to_string(instances));
    }
  }
}

// Hardly more blocks than the largest request needs, and nothing kept for growth: requests wait,
// are preempted, lose the end of their KV and compute it again.
constexpr RunOptions kTight = {
    .num_instances = 3, .block_size = 4, .num_blocks = 20, .reserves_growth = false};

TEST(SameTokens, UnderMemoryPressure) {
  const TestModel model = load_test_model(fixture_dir("deepseek_v3"), "config.json");
  const auto requests = sampled_requests(model.spec->vocab_size);
  const auto want = run_requests(model, {}, make_uneven_policy(1), requests);
  ASSERT_TRUE(want.ok()) << want.error().message;
  scheduler::PolicyOptions options = {.num_instances = 3};
  options.min_tokens_per_shard = 16;
  const auto got = run_requests(model, kTight, named_policy("dcp", options), requests);
  ASSERT_TRUE(got.ok()) << got.error().message;
  expect_same_tokens(*got, *want, "pressure");
  int num_preemptions = 0;
  int max_degree = 0;
  for (const RunOutput& output : *got) {
    num_preemptions += output.summary->num_preemptions;
    max_degree = std::max(max_degree, static_cast<int>(output.summary->kv_tokens.size()));
  }
  EXPECT_GT(num_preemptions, 0);
  EXPECT_EQ(max_degree, 3);
}

// Steps are planned before the tokens of the step before are known; some requests end at a token
// that nobody foresaw, rows move between instances, and blocks are short.
TEST(SameTokens, WithAStepPlannedAhead) {
  const TestModel model = load_test_model(fixture_dir("qwen3_moe"), "config.json");
  auto requests = sampled_requests(model.spec->vocab_size);
  const auto first = run_requests(model, {}, make_uneven_policy(1), requests);
  ASSERT_TRUE(first.ok()) << first.error().message;
  for (size_t i = 0; i < requests.size(); i += 2) {
    requests[i].stop_token_ids = {(*first)[i].tokens[5 + i]};
  }
  const auto want = run_requests(model, {}, make_uneven_policy(1), requests);
  ASSERT_TRUE(want.ok()) << want.error().message;

  const auto expect_same = [&](const RunOptions& options,
                               std::unique_ptr<scheduler::Policy> policy) {
    auto runner = runner::CpuRunner::create(model.spec, model.weights,
                                            {.num_instances = options.num_instances,
                                             .block_size = options.block_size,
                                             .num_blocks = options.num_blocks,
                                             .keep_logits = true});
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    AheadRunner ahead(**runner);
    const auto got = run_requests_on(ahead, model, options, std::move(policy), requests);
    ASSERT_TRUE(got.ok()) << got.error().message;
    expect_same_tokens(*got, *want, "ahead");
    EXPECT_GT(ahead.num_launched_ahead(), 20);
  };
  expect_same({}, make_uneven_policy(1));
  scheduler::PolicyOptions options = {.num_instances = 3};
  options.min_tokens_per_shard = 16;
  expect_same(kTight, named_policy("dcp", options));
  expect_same({.num_instances = 3, .prefill_chunk_tokens = 7}, make_random_policy(3));
}

}  // namespace
}  // namespace nanocp::e2e
