#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "engine/content_runner.h"
#include "engine/test_constraint.h"

namespace nanocp::engine {
namespace {

using request::FinishReason;

constexpr int32_t kVocabSize = 1000;

// An engine over a ContentRunner, with what it has returned so far.
struct Bench {
  explicit Bench(std::vector<int64_t> num_blocks, const std::string& policy = "dcp",
                 std::vector<TokenId> eos = {}, int32_t degree = 1, bool runs_ahead = false) {
    options.scheduler.num_blocks = num_blocks;
    options.scheduler.block_size = 4;
    options.scheduler.max_batched_tokens = 16;
    options.scheduler.max_num_seqs = 8;
    options.scheduler.reserves_growth = false;
    options.eos_token_ids = std::move(eos);
    options.vocab_size = kVocabSize;
    options.max_model_len = 400;
    runner = std::make_unique<ContentRunner>(ContentRunner::Options{.block_size = 4,
                                                                    .num_blocks = num_blocks,
                                                                    .vocab_size = kVocabSize,
                                                                    .runs_ahead = runs_ahead});
    auto made = scheduler::make_policy(
        policy, {.num_instances = static_cast<int32_t>(num_blocks.size()), .degree = degree});
    engine = std::make_unique<Engine>(options, std::move(*made), *runner, clock, Random(1));
  }

  SequenceId add(request::Request request) { return *engine->add_request(std::move(request)); }

  void run(int max_steps = 2000) {
    for (int i = 0; i < max_steps && engine->has_work(); ++i) step();
    EXPECT_FALSE(engine->has_work());
  }

  void step() {
    auto events = engine->step();
    ASSERT_TRUE(events.ok()) << events.error().message;
    engine->scheduler().check_integrity();
    for (TokenEvent& event : *events) {
      tokens[event.sequence].push_back(event.token);
      if (event.finish_reason != FinishReason::kNone) last[event.sequence] = std::move(event);
    }
  }

  int64_t num_free() const {
    int64_t sum = 0;
    for (const auto& load : engine->loads()) sum += load.num_free_blocks;
    return sum;
  }

  EngineOptions options;
  ManualClock clock;
  std::unique_ptr<ContentRunner> runner;
  std::unique_ptr<Engine> engine;
  std::map<SequenceId, std::vector<TokenId>> tokens;
  std::map<SequenceId, TokenEvent> last;
};

std::vector<TokenId> prompt_of(int32_t length, TokenId first = 1) {
  std::vector<TokenId> prompt(static_cast<size_t>(length));
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

request::Request request_of(int32_t length, int32_t max_tokens, TokenId first = 1) {
  request::Request request;
  request.prompt = prompt_of(length, first);
  request.max_tokens = max_tokens;
  return request;
}

std::vector<TokenId> expected_tokens(std::vector<TokenId> tokens, int32_t count) {
  std::vector<TokenId> output;
  for (int32_t i = 0; i < count; ++i) {
    output.push_back(ContentRunner::next_token(tokens, kVocabSize));
    tokens.push_back(output.back());
  }
  return output;
}

TEST(Engine, RunsARequestToItsLength) {
  Bench bench({20, 20});
  const SequenceId id = bench.add(request_of(37, 9));
  bench.run();
  EXPECT_EQ(bench.tokens[id], expected_tokens(prompt_of(37), 9));
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kLength);
  ASSERT_TRUE(bench.last[id].summary != nullptr);
  EXPECT_EQ(bench.last[id].summary->kv_tokens.at(0).second, 37 + 8);
  EXPECT_EQ(bench.num_free(), 40);
  EXPECT_EQ(bench.engine->sequence(id), nullptr);
}

TEST(Engine, GivesEqualTokensUnderEveryPolicy) {
  for (const std::string policy : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
    Bench bench({30, 30, 30}, policy, {}, 2);
    std::map<SequenceId, std::pair<int32_t, TokenId>> requests;
    for (int32_t i = 0; i < 12; ++i) {
      const int32_t length = 1 + i * 7 % 50;
      requests[bench.add(request_of(length, 5 + i, 10 * i))] = {length, 10 * i};
    }
    bench.run();
    int32_t i = 0;
    for (const auto& [id, shape] : requests) {
      EXPECT_EQ(bench.tokens[id], expected_tokens(prompt_of(shape.first, shape.second), 5 + i++))
          << policy << " sequence " << id;
    }
    EXPECT_EQ(bench.num_free(), 90) << policy;
  }
}

TEST(Engine, EosEndsARequestAndIsNotText) {
  const auto output = expected_tokens(prompt_of(5), 6);
  Bench bench({10}, "bound", {output[3]});
  const SequenceId id = bench.add(request_of(5, 20));
  bench.run();
  EXPECT_EQ(bench.tokens[id], std::vector<TokenId>(output.begin(), output.begin() + 4));
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kStop);
  EXPECT_FALSE(bench.last[id].is_text);
}

TEST(Engine, IgnoreEosGoesOnButStopTokensStop) {
  const auto output = expected_tokens(prompt_of(5), 8);
  Bench bench({10}, "bound", {output[1]});
  request::Request request = request_of(5, 20);
  request.ignore_eos = true;
  request.stop_token_ids = {output[5]};
  const SequenceId id = bench.add(request);
  bench.run();
  EXPECT_EQ(bench.tokens[id].size(), 6U);
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kStop);
}

TEST(Engine, MinTokensForbidsStopTokensUntilThen) {
  Bench bench({10}, "bound", {999});
  request::Request request = request_of(5, 4);
  request.min_tokens = 2;
  request.sampling.forbidden_tokens = {7};
  const SequenceId id = bench.add(request);
  std::vector<std::vector<TokenId>> forbidden;
  bench.runner->during_wait = [&] {
    forbidden.push_back(bench.engine->sequence(id)->request.sampling.forbidden_tokens);
  };
  bench.run();
  const std::vector<std::vector<TokenId>> expected = {{7, 999}, {7, 999}, {7}, {7}};
  EXPECT_EQ(forbidden, expected);
}

TEST(Engine, MinTokensKeepsAStopTokenFromEnding) {
  const auto output = expected_tokens(prompt_of(5), 3);
  Bench bench({10}, "bound", {output[1]});
  request::Request request = request_of(5, 3);
  request.min_tokens = 2;
  const SequenceId id = bench.add(request);
  bench.run();
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kLength);
}

TEST(Engine, CancelFreesAtOnce) {
  Bench bench({10, 10});
  const SequenceId id = bench.add(request_of(30, 10));
  const SequenceId other = bench.add(request_of(3, 4));
  bench.step();
  EXPECT_TRUE(bench.engine->cancel(id));
  EXPECT_FALSE(bench.engine->cancel(id));
  bench.engine->scheduler().check_integrity();
  EXPECT_EQ(bench.engine->sequence(id), nullptr);
  EXPECT_EQ(bench.engine->placement(id), nullptr);
  bench.run();
  EXPECT_EQ(bench.tokens[other], expected_tokens(prompt_of(3), 4));
  EXPECT_EQ(bench.num_free(), 20);
}

TEST(Engine, CancelDuringAStepDropsItsToken) {
  Bench bench({10});
  const SequenceId id = bench.add(request_of(6, 10));
  bench.step();
  bench.runner->during_wait = [&] {
    EXPECT_TRUE(bench.engine->cancel(id));
    EXPECT_EQ(bench.num_free(), 10);
    EXPECT_TRUE(bench.engine->has_work());
  };
  bench.step();
  EXPECT_EQ(bench.tokens[id].size(), 1U);
  EXPECT_FALSE(bench.engine->has_work());
}

// Blocks of a cancelled sequence are taken by the next step while its rows are still on the way.
TEST(Engine, CancelWithTwoStepsInFlightGivesItsBlocksAway) {
  Bench bench({6}, "bound", {}, 1, true);
  const SequenceId id = bench.add(request_of(15, 8));
  bench.step();
  EXPECT_TRUE(bench.engine->cancel(id));
  EXPECT_EQ(bench.num_free(), 6);
  const SequenceId other = bench.add(request_of(17, 5, 40));
  bench.run();
  EXPECT_EQ(bench.tokens[id].size(), 1U);
  EXPECT_EQ(bench.tokens[other], expected_tokens(prompt_of(17, 40), 5));
  EXPECT_EQ(bench.num_free(), 6);
}

TEST(EngineAhead, PlansWhatIsPlannedOtherwise) {
  for (const std::string policy : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
    std::map<SequenceId, std::vector<TokenId>> tokens[2];
    int64_t num_rows[2];
    uint64_t num_steps[2];
    for (const bool ahead : {false, true}) {
      Bench bench({15, 15, 15}, policy, {}, 2, ahead);
      for (int32_t i = 0; i < 12; ++i) bench.add(request_of(1 + i * 7 % 40, 5 + i, 10 * i));
      bench.run();
      tokens[ahead ? 1 : 0] = bench.tokens;
      num_rows[ahead ? 1 : 0] = bench.runner->num_rows;
      num_steps[ahead ? 1 : 0] = bench.engine->num_steps();
      EXPECT_EQ(bench.runner->num_launched_ahead > 0, ahead);
    }
    // Where outputs end by their length, the very same steps are planned.
    EXPECT_EQ(tokens[0], tokens[1]) << policy;
    EXPECT_EQ(num_rows[0], num_rows[1]) << policy;
    EXPECT_EQ(num_steps[0], num_steps[1]) << policy;
  }
}

TEST(EngineAhead, AnEndTokenCostsOneRowMore) {
  const auto output = expected_tokens(prompt_of(5), 6);
  for (const bool ahead : {false, true}) {
    Bench bench({10}, "bound", {output[3]}, 1, ahead);
    const SequenceId id = bench.add(request_of(5, 20));
    bench.run();
    EXPECT_EQ(bench.tokens[id], std::vector<TokenId>(output.begin(), output.begin() + 4));
    EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kStop);
    EXPECT_EQ(bench.runner->num_rows, ahead ? 9 : 8);
    EXPECT_EQ(bench.num_free(), 10);
  }
}

TEST(EngineAhead, AStepThatMayNotRunAheadGetsItsTokensFromTheHost) {
  Bench bench({10}, "bound", {}, 1, true);
  bench.runner->allows_ahead = [] { return false; };
  const SequenceId id = bench.add(request_of(5, 6));
  bench.run();
  EXPECT_EQ(bench.tokens[id], expected_tokens(prompt_of(5), 6));
  EXPECT_EQ(bench.runner->num_launched_ahead, 0);
}

request::Request constrained_request(const SumConstraint::Options& options, int32_t max_tokens) {
  request::Request request = request_of(5, max_tokens);
  request.constraint = std::make_shared<SumConstraint>(options);
  return request;
}

TEST(EngineConstraint, HoldsAStepAheadAndWithout) {
  for (const bool ahead : {false, true}) {
    Bench bench({20, 20}, "bound", {999}, 1, ahead);
    const SequenceId id =
        bench.add(constrained_request({.vocab_size = 1000, .num_tokens = 30, .end = 999}, 60));
    request::Request free = request_of(9, 50, 3);
    free.ignore_eos = true;
    const SequenceId other = bench.add(free);
    bench.run();
    ASSERT_EQ(bench.tokens[id].size(), 31U);
    int64_t sum = 0;
    for (size_t i = 0; i < 30; ++i) {
      EXPECT_EQ(bench.tokens[id][i] % 7, sum % 7);
      sum += bench.tokens[id][i];
    }
    EXPECT_EQ(bench.tokens[id][30], 999);
    EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kStop);
    EXPECT_EQ(bench.tokens[other], expected_tokens(prompt_of(9, 3), 50));
    // Steps that wait for its tokens are not launched ahead; once it has ended all are again.
    EXPECT_EQ(bench.runner->num_launched_ahead > 10, ahead);
  }
}

TEST(EngineConstraint, ADeadEndIsAnErrorThatSaysSo) {
  Bench bench({20}, "bound", {999}, 1, true);
  const SequenceId id = bench.add(constrained_request(
      {.vocab_size = 1000, .num_tokens = 4, .end = 999, .gets_stuck = true}, 60));
  bench.run();
  EXPECT_EQ(bench.tokens[id].size(), 4U);
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kError);
  ASSERT_NE(bench.last[id].summary, nullptr);
  EXPECT_EQ(bench.last[id].summary->error, "the sum is wrong");
  EXPECT_EQ(bench.num_free(), 20);
}

TEST(EngineConstraint, ARunnerThatIgnoresTheMaskIsFoundOut) {
  Bench bench({20});
  const SequenceId id =
      bench.add(constrained_request({.vocab_size = 1000, .num_tokens = 0, .end = 7}, 60));
  bench.runner->ignores_masks = true;
  bench.run();
  EXPECT_EQ(bench.last[id].finish_reason, FinishReason::kError);
}

TEST(EngineConstraint, RefusesWhatContradictsIt) {
  Bench bench({20});
  const SumConstraint::Options stuck = {
      .vocab_size = 1000, .num_tokens = 0, .end = 7, .gets_stuck = true};
  request::Request request = constrained_request(stuck, 9);
  request.min_tokens = 2;
  EXPECT_NE(bench.engine->add_request(request).error().message.find("min_tokens"),
            std::string::npos);
  request = constrained_request(stuck, 9);
  request.ignore_eos = true;
  EXPECT_NE(bench.engine->add_request(request).error().message.find("ignore_eos"),
            std::string::npos);
  request.ignore_eos = false;
  request.constraint = std::make_shared<SumConstraint>(
      SumConstraint::Options{.vocab_size = 0, .num_tokens = 0, .end = 7});
  EXPECT_EQ(bench.engine->add_request(request).error().message, "the sum is wrong");
  EXPECT_FALSE(bench.engine->has_work());
}

TEST(EngineAhead, CanBeTurnedOff) {
  Bench bench({10}, "bound", {}, 1, true);
  bench.options.async_scheduling = false;
  auto policy = scheduler::make_policy("bound", {.num_instances = 1});
  bench.engine = std::make_unique<Engine>(bench.options, std::move(*policy), *bench.runner,
                                          bench.clock, Random(1));
  bench.add(request_of(5, 6));
  bench.run();
  EXPECT_EQ(bench.runner->num_launched_ahead, 0);
}

TEST(EngineAhead, ARunnerErrorEndsBothSteps) {
  Bench bench({10}, "bound", {}, 1, true);
  bench.add(request_of(6, 10));
  bench.step();
  bench.runner->failure = "instance 1 waited for instance 0";
  EXPECT_FALSE(bench.engine->step().ok());
  EXPECT_FALSE(bench.engine->has_work());
  EXPECT_EQ(bench.num_free(), 10);
  bench.runner->failure.clear();
  // Nothing is left in flight: the runner accepts no third step.
  bench.engine.reset();
}

TEST(EngineAhead, AnEngineThatGoesWaitsForItsSteps) {
  Bench bench({10}, "bound", {}, 1, true);
  bench.add(request_of(6, 10));
  bench.step();
  auto policy = scheduler::make_policy("bound", {.num_instances = 1});
  bench.engine = std::make_unique<Engine>(bench.options, std::move(*policy), *bench.runner,
                                          bench.clock, Random(1));
  const SequenceId id = bench.add(request_of(6, 10));
  bench.tokens.clear();
  bench.run();
  EXPECT_EQ(bench.tokens[id], expected_tokens(prompt_of(6), 10));
}

TEST(Engine, RunnerErrorEndsEverything) {
  Bench bench({10});
  bench.add(request_of(6, 10));
  bench.add(request_of(30, 1));
  bench.runner->failure = "instance 1 waited for instance 0";
  auto events = bench.engine->step();
  ASSERT_FALSE(events.ok());
  EXPECT_EQ(events.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_FALSE(bench.engine->has_work());
  EXPECT_EQ(bench.num_free(), 10);
  EXPECT_FALSE(bench.engine->step().ok());
  EXPECT_EQ(bench.engine->add_request(request_of(1, 1)).error().code, ErrorCode::kAborted);
}

TEST(Engine, RefusesWhatCanNeverRun) {
  Bench bench({10, 10}, "bound");
  const auto message = [&](request::Request request) {
    auto result = bench.engine->add_request(std::move(request));
    return result.ok() ? "accepted" : result.error().message;
  };
  EXPECT_NE(message(request_of(0, 1)).find("prompt is empty"), std::string::npos);
  EXPECT_NE(message(request_of(3, 0)).find("max_tokens is 0"), std::string::npos);
  EXPECT_NE(message(request_of(390, 11)).find("lower max_tokens to 10"), std::string::npos);
  EXPECT_NE(message(request_of(41, 1)).find("policy bound can hold 40"), std::string::npos);
  EXPECT_EQ(message(request_of(40, 1)), "accepted");
  request::Request request = request_of(3, 5);
  request.prompt[1] = kVocabSize;
  EXPECT_NE(message(request).find("prompt[1] is 1000"), std::string::npos);
  request = request_of(3, 5);
  request.min_tokens = 6;
  EXPECT_NE(message(request).find("min_tokens is 6"), std::string::npos);
  request = request_of(3, 5);
  request.sampling.top_p = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(message(request).find("top_p"), std::string::npos);
}

TEST(Engine, SeedsAreDrawnOnlyOnRequest) {
  Bench bench({10});
  request::Request request = request_of(3, 1);
  request.sampling.seed = 5;
  const SequenceId fixed = bench.add(request);
  request.draw_seed = true;
  const SequenceId drawn = bench.add(request);
  EXPECT_EQ(bench.engine->sequence(fixed)->request.sampling.seed, 5U);
  EXPECT_NE(bench.engine->sequence(drawn)->request.sampling.seed, 5U);
}

TEST(Engine, PreemptionKeepsThePrefixAndTheTokens) {
  Bench bench({6}, "bound");
  const SequenceId first = bench.add(request_of(8, 12));
  const SequenceId second = bench.add(request_of(6, 10, 50));
  bench.run();
  EXPECT_EQ(bench.tokens[first], expected_tokens(prompt_of(8), 12));
  EXPECT_EQ(bench.tokens[second], expected_tokens(prompt_of(6, 50), 10));
  EXPECT_EQ(bench.last[first].summary->num_preemptions, 0);
  EXPECT_LT(0, bench.last[second].summary->num_preemptions);
  // 19 + 15 rows without preemption; what was lost is less than a full recomputation each time.
  EXPECT_LT(bench.runner->num_rows, 19 + 15 + 15);
}

}  // namespace
}  // namespace nanocp::engine
