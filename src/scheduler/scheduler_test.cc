#include "scheduler/scheduler.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "scheduler/scheduler_test_bench.h"

namespace nanocp::scheduler {
namespace {

using Rows = std::map<SequenceId, int32_t>;

TEST(Scheduler, DecodesFirstAndFillsUpWithPrefill) {
  Bench bench(options_of({40}));
  bench.add(3, 10);
  bench.add(30, 10);
  EXPECT_EQ(bench.step(), (Rows{{1, 3}, {2, 13}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 1}, {2, 15}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 1}, {2, 2}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 1}, {2, 1}}));
}

TEST(Scheduler, PrefillChunksAreCapped) {
  SchedulerOptions options = options_of({40});
  options.prefill_chunk_tokens = 6;
  Bench bench(options);
  bench.add(10, 2);
  bench.add(10, 2);
  EXPECT_EQ(bench.step(), (Rows{{1, 6}, {2, 6}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 4}, {2, 4}}));
}

TEST(Scheduler, AdmissionTakesRoomForThePromptAndOneToken) {
  Bench bench(options_of({40}));
  bench.add(8, 4);
  bench.add(8, 1);  // the last token is never written
  bench.plan();
  EXPECT_EQ(bench.scheduler->placement(1)->num_blocks(), 3);
  EXPECT_EQ(bench.scheduler->placement(2)->num_blocks(), 2);
}

TEST(Scheduler, SeatsPerInstanceAreLimited) {
  SchedulerOptions options = options_of({40});
  options.max_num_seqs = 2;
  Bench bench(options);
  for (int i = 0; i < 3; ++i) bench.add(1, 3);
  EXPECT_EQ(bench.step().size(), 2U);
  EXPECT_EQ(bench.scheduler->num_waiting(), 1U);
  bench.step();
  bench.step();
  EXPECT_EQ(bench.step(), (Rows{{3, 1}}));
}

TEST(Scheduler, PriorityComesBeforeArrival) {
  SchedulerOptions options = options_of({40});
  options.max_num_seqs = 1;
  Bench bench(options);
  bench.add(1, 1, 0);
  bench.add(1, 1, -2);
  bench.add(1, 1, 1);
  EXPECT_EQ(bench.step(), (Rows{{2, 1}}));
  EXPECT_EQ(bench.step(), (Rows{{1, 1}}));
  EXPECT_EQ(bench.step(), (Rows{{3, 1}}));
}

TEST(Scheduler, ABlockedHeadIsOvertakenABoundedNumberOfTimes) {
  SchedulerOptions options = options_of({10});
  options.max_overtakes = 3;
  Bench bench(options);
  bench.add(20, 12);  // holds 6 of 10 blocks and grows
  bench.step();
  bench.add(30, 1);  // needs 8
  for (int i = 0; i < 6; ++i) bench.add(1, 1);
  for (int i = 0; i < 40 && bench.scheduler->has_work(); ++i) bench.step();
  EXPECT_FALSE(bench.scheduler->has_work());
  EXPECT_EQ(bench.sequences[1]->status, SequenceStatus::kFinished);

  Bench again(options);
  again.add(20, 12);
  again.step();
  again.add(30, 1);
  for (int i = 0; i < 6; ++i) again.add(1, 1);
  Rows rows = again.step();
  EXPECT_EQ(rows.size(), 1U + 3U);
  rows = again.step();
  EXPECT_EQ(rows.size(), 1U);
}

TEST(Scheduler, LooksAtABoundedPartOfTheQueue) {
  SchedulerOptions options = options_of({10});
  options.admission_lookahead = 1;
  Bench bench(options);
  bench.add(20, 12);
  bench.step();
  bench.add(30, 1);
  bench.add(30, 1);
  bench.add(1, 1);
  EXPECT_EQ(bench.step(), (Rows{{1, 4}}));
}

TEST(Scheduler, PreemptionTakesOneBlockFromTheYoungest) {
  Bench bench(options_of({6}));
  Sequence& old = bench.add(7, 10);
  Sequence& young = bench.add(11, 10);
  EXPECT_EQ(bench.step(), (Rows{{1, 7}, {2, 9}}));
  bench.step();  // the young one has 11 tokens cached now, the old one 8; 2 + 3 blocks in use
  EXPECT_EQ(bench.scheduler->loads()[0].num_free_blocks, 1);
  bench.step();  // the old one takes the last free block
  EXPECT_EQ(bench.scheduler->loads()[0].num_free_blocks, 0);
  EXPECT_EQ(young.num_cached_tokens, 12);
  const Rows rows = bench.step();  // the young one needs a block and finds nobody younger
  EXPECT_EQ(rows, (Rows{{1, 1}}));
  EXPECT_EQ(young.status, SequenceStatus::kWaiting);
  EXPECT_EQ(young.num_cached_tokens, 12);
  EXPECT_EQ(young.num_preemptions, 1);
  EXPECT_EQ(young.binding, kNoInstance);
  while (old.num_cached_tokens < 12) bench.step();
  bench.step();  // the old one needs its fourth block
  EXPECT_EQ(old.num_cached_tokens, 13);
  EXPECT_EQ(young.num_cached_tokens, 8);
  EXPECT_EQ(old.num_preemptions, 0);
  while (bench.scheduler->has_work()) bench.step();
  EXPECT_EQ(young.output.size(), 10U);
}

TEST(Scheduler, ImportantSequencesTakeFromOlderLessImportantOnes) {
  Bench bench(options_of({4}));
  Sequence& old = bench.add(8, 4, 1);
  bench.step();
  Sequence& important = bench.add(3, 8, 0);
  bench.step();
  bench.step();
  while (important.status == SequenceStatus::kRunning) bench.step();
  EXPECT_EQ(important.num_preemptions, 0);
  EXPECT_EQ(important.status, SequenceStatus::kFinished);
  EXPECT_LT(0, old.num_preemptions);
}

TEST(Scheduler, TheHeadTakesPrefixesOfThoseThatWaitBehindIt) {
  Bench bench(options_of({6}), policy_of("bound", 1));
  Sequence& old = bench.add(8, 9);
  Sequence& young = bench.add(7, 9);
  while (young.status == SequenceStatus::kRunning || young.num_preemptions == 0) bench.step();
  ASSERT_LT(0, young.num_cached_tokens);
  ASSERT_LT(bench.scheduler->loads()[0].num_free_blocks, 2);
  Sequence& important = bench.add(7, 1, -1);  // needs 2 blocks
  bench.step();
  EXPECT_EQ(important.status, SequenceStatus::kFinished);
  EXPECT_EQ(old.num_preemptions, 0);
  while (bench.scheduler->has_work()) bench.step();
  EXPECT_EQ(young.output.size(), 9U);
}

TEST(Scheduler, TheHeadTakesNoMoreThanItNeeds) {
  Bench bench(options_of({6}), policy_of("bound", 1));
  bench.add(8, 9);
  Sequence& young = bench.add(7, 9);
  while (young.num_preemptions == 0) bench.step();
  ASSERT_EQ(young.num_cached_tokens, 8);
  ASSERT_EQ(bench.scheduler->loads()[0].num_free_blocks, 0);
  bench.add(3, 1, -1);  // needs 1 block
  bench.step();
  EXPECT_EQ(bench.sequences[2]->status, SequenceStatus::kFinished);
  EXPECT_EQ(young.num_cached_tokens, 4);
}

TEST(Scheduler, PreemptionStopsAdmissionOnlyWhereBlocksAreShort) {
  Bench bench(options_of({6, 6}));
  bench.add(7, 10);
  bench.add(11, 10);
  for (int i = 0; i < 3; ++i) bench.step();
  bench.script->home = 1;
  bench.add(3, 1);
  EXPECT_EQ(bench.step(), (Rows{{1, 1}, {3, 3}}));
  EXPECT_EQ(bench.sequences[1]->num_preemptions, 1);
}

TEST(Scheduler, GrowthUsesOtherInstancesBeforeItPreempts) {
  Bench bench(options_of({3, 3, 3}), policy_of("dcp", 3));
  for (int i = 0; i < 3; ++i) bench.add(4, 1 + 4 * 2);
  while (bench.scheduler->has_work()) bench.step();
  for (const auto& sequence : bench.sequences) EXPECT_EQ(sequence->num_preemptions, 0);

  Bench narrow(options_of({2, 7}), policy_of("dcp", 2));
  Sequence& long_one = narrow.add(4, 29);
  int32_t degree = 0;
  while (narrow.scheduler->has_work()) {
    narrow.step();
    const auto* placement = narrow.scheduler->placement(long_one.id);
    if (placement != nullptr) degree = std::max(degree, placement->degree());
  }
  EXPECT_EQ(degree, 2);
  EXPECT_EQ(long_one.num_preemptions, 0);
}

TEST(Scheduler, FallsBackWhenThePreferredHolderIsFull) {
  Bench bench(options_of({2, 9}));
  bench.script->permitted = {0, 1};
  Sequence& sequence = bench.add(4, 9);
  while (sequence.num_cached_tokens < 9) bench.step();
  const auto* placement = bench.scheduler->placement(1);
  EXPECT_EQ(placement->tail_holder(), 1);
  EXPECT_EQ(sequence.num_preemptions, 0);
}

TEST(Scheduler, RemovalFreesAtOnceAndLeavesThePlanAsItIs) {
  Bench bench(options_of({8}));
  bench.add(6, 5);
  const StepPlan& plan = bench.plan();
  const auto& shown = plan.instances[0].items[0].blocks;
  const std::vector<BlockId> blocks(shown.begin(), shown.end());
  bench.scheduler->commit_step();
  EXPECT_EQ(bench.scheduler->loads()[0].num_free_blocks, 6);
  bench.scheduler->remove(1, FinishReason::kCancelled);
  EXPECT_EQ(std::vector<BlockId>(shown.begin(), shown.end()), blocks);
  EXPECT_EQ(bench.scheduler->loads()[0].num_free_blocks, 8);
  EXPECT_EQ(bench.sequences[0]->status, SequenceStatus::kFinished);
  EXPECT_EQ(bench.sequences[0]->finish_reason, FinishReason::kCancelled);
  EXPECT_FALSE(bench.scheduler->has_work());
}

TEST(Scheduler, PlansAheadOfTokensThatAreNotRead) {
  Bench bench(options_of({8, 8}));
  bench.add(3, 5);
  bench.add(2, 5);
  const StepPlan& first = bench.plan();
  EXPECT_TRUE(first.instances[0].unread_tokens.empty());
  bench.scheduler->commit_step();
  for (const auto& sequence : bench.sequences) ++sequence->num_unread;

  bench.script->binding = 1;
  const StepPlan& second = bench.plan();
  EXPECT_EQ(first.instances[0].token_ids, (std::vector<TokenId>{5, 5, 5, 5, 5}));
  EXPECT_EQ(first.sample_tasks[0][1].output_index, 0);
  const InstancePlan& plan = second.instances[1];
  EXPECT_EQ(plan.token_ids, (std::vector<TokenId>{kNoToken, kNoToken}));
  EXPECT_EQ(plan.positions, (std::vector<int32_t>{3, 2}));
  ASSERT_EQ(plan.unread_tokens.size(), 2U);
  for (int32_t row = 0; row < 2; ++row) {
    const UnreadToken& unread = plan.unread_tokens[static_cast<size_t>(row)];
    EXPECT_EQ(unread.row, row);
    EXPECT_EQ(unread.source, 0);
    EXPECT_EQ(unread.sample, row);
  }
  EXPECT_EQ(second.sample_tasks[1][0].output_index, 1);
}

TEST(Scheduler, RefusesWhatThePolicyCanNeverHold) {
  Bench bound(options_of({4, 6}), policy_of("bound", 2));
  Bench dcp(options_of({4, 6}), policy_of("dcp", 2));
  Sequence sequence;
  sequence.request.prompt.assign(30, 1);
  sequence.request.max_tokens = 11;  // 40 KV tokens, 10 blocks
  const Status refused = bound.scheduler->add(&sequence);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("needs 40 KV tokens"), std::string::npos);
  EXPECT_TRUE(dcp.scheduler->add(&sequence).ok());
}

TEST(Scheduler, TheLargestRequestRunsInTheEnd) {
  SchedulerOptions options = options_of({5, 5});
  options.watermark = 0.5;
  Bench bench(options, policy_of("dcp", 2));
  bench.add(3, 12);
  bench.step();
  Sequence& largest = bench.add(30, 11);
  for (int i = 0; i < 100 && bench.scheduler->has_work(); ++i) bench.step();
  EXPECT_EQ(largest.output.size(), 11U);
}

TEST(SchedulerDeathTest, MisuseAborts) {
  Bench bench(options_of({9}));
  EXPECT_DEATH(bench.scheduler->commit_step(), "check failed");
  EXPECT_DEATH(bench.scheduler->remove(5, FinishReason::kLength), "check failed");
  bench.add(2, 4);
  bench.scheduler->plan_step();
  EXPECT_DEATH(bench.scheduler->plan_step(), "check failed");
  EXPECT_DEATH(bench.scheduler->remove(1, FinishReason::kLength), "check failed");
}

TEST(SchedulerDeathTest, APolicyThatGivesTooMuchAborts) {
  Bench bench(options_of({2}));
  bench.script->spans = {{0, 3}};
  bench.add(9, 2);
  EXPECT_DEATH(bench.scheduler->plan_step(), "check failed");
}

TEST(SchedulerOptions, ErrorsNameTheOption) {
  const auto message = [](const std::function<void(SchedulerOptions&)>& change) {
    SchedulerOptions options = options_of({4});
    change(options);
    const Status status = check_options(options);
    return status.ok() ? std::string() : status.error().message;
  };
  EXPECT_EQ(message([](SchedulerOptions&) {}), "");
  EXPECT_NE(message([](auto& o) { o.num_blocks.clear(); }).find("instances"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.num_blocks[0] = 0; }).find("num_blocks"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.block_size = 0; }).find("block_size"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.max_num_seqs = 0; }).find("max_num_seqs"), std::string::npos);
  EXPECT_NE(message([](auto& o) { o.max_batched_tokens = 7; }).find("max_batched"),
            std::string::npos);
  EXPECT_NE(message([](auto& o) { o.watermark = 1.0; }).find("watermark"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::scheduler
