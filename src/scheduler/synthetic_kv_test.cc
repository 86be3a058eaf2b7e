// Requests whose K/V counts as there from the start, as benchmarks use them.
#include <gtest/gtest.h>

#include "scheduler/scheduler_test_bench.h"

namespace nanocp::scheduler {
namespace {

Sequence& add_synthetic(Bench& bench, int32_t num_prompt, int32_t max_tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = bench.sequences.size() + 1;
  sequence->request.prompt.assign(static_cast<size_t>(num_prompt), 5);
  sequence->request.max_tokens = max_tokens;
  sequence->request.synthetic_kv = true;
  NANOCP_CHECK(bench.scheduler->add(sequence.get()).ok());
  bench.sequences.push_back(std::move(sequence));
  return *bench.sequences.back();
}

TEST(SyntheticKv, TheFirstStepDecodes) {
  Bench bench(options_of({40, 40}), policy_of("uniform_cp", 2));
  const Sequence& sequence = add_synthetic(bench, 33, 4);
  EXPECT_EQ(bench.step(), (std::map<SequenceId, int32_t>{{1, 1}}));
  EXPECT_EQ(sequence.num_cached_tokens, 33);
  int64_t held = 0;
  for (const InstanceLoad& load : bench.scheduler->loads()) held += load.num_kv_tokens;
  EXPECT_EQ(held, 33);
  EXPECT_EQ(bench.scheduler->placement(1)->shards().size(), 2U);
  while (sequence.status != SequenceStatus::kFinished) EXPECT_EQ(bench.step().at(1), 1);
  for (const InstanceLoad& load : bench.scheduler->loads()) EXPECT_EQ(load.num_kv_tokens, 0);
}

TEST(SyntheticKv, JoinsWhileOthersRun) {
  Bench bench(options_of({40}));
  bench.add(3, 20);
  EXPECT_EQ(bench.step().at(1), 3);
  add_synthetic(bench, 50, 4);
  EXPECT_EQ(bench.step(), (std::map<SequenceId, int32_t>{{1, 1}}));
  EXPECT_EQ(bench.step(), (std::map<SequenceId, int32_t>{{1, 1}, {2, 1}}));
}

TEST(SyntheticKv, APromptOfOneTokenIsAnOrdinaryOne) {
  Bench bench(options_of({40}));
  add_synthetic(bench, 1, 2);
  EXPECT_EQ(bench.step().at(1), 1);
}

// Blocks that preemption took are computed again: only what was never there is made up.
TEST(SyntheticKv, WaitsForRoomAndSurvivesPreemption) {
  Bench bench(options_of({10}));
  add_synthetic(bench, 17, 20);
  add_synthetic(bench, 17, 20);
  int num_steps = 0;
  for (; num_steps < 200 && bench.scheduler->has_work(); ++num_steps) bench.step();
  EXPECT_LT(num_steps, 200);
  for (const auto& sequence : bench.sequences) {
    EXPECT_EQ(sequence->status, SequenceStatus::kFinished);
    EXPECT_EQ(sequence->output.size(), 20U);
  }
}

}  // namespace
}  // namespace nanocp::scheduler
