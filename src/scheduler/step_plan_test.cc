#include "scheduler/step_plan.h"

#include <gtest/gtest.h>

#include "scheduler/scheduler_test_bench.h"

namespace nanocp::scheduler {
namespace {

TEST(StepPlan, SplitRequestsSendQueriesAndNewKv) {
  Bench bench(options_of({9, 9, 9}));
  bench.script->spans = {{2, 1}, {0, 1}, {2, 1}, {1, 0}};
  bench.script->admission_binding = 0;
  bench.add(10, 3);
  const StepPlan& plan = bench.plan();
  const InstancePlan& home = plan.instances[0];
  EXPECT_EQ(home.num_rows(), 10);
  EXPECT_EQ(home.kv_sends.rows_of[2], (std::vector<int32_t>{0, 1, 2, 3, 8, 9}));
  EXPECT_TRUE(home.kv_sends.rows_of[1].empty());
  // Rows 0..3 lie before the first block of instance 0 and see nothing there.
  ASSERT_EQ(home.items.size(), 1U);
  EXPECT_EQ(home.items[0].row_begin, 4);
  EXPECT_EQ(home.items[0].num_rows, 6);
  const InstancePlan& remote = plan.instances[2];
  ASSERT_EQ(remote.items.size(), 1U);
  EXPECT_EQ(remote.items[0].source, 0);
  EXPECT_EQ(remote.items[0].num_rows, 10);
  EXPECT_EQ(
      std::vector<int32_t>(remote.items[0].block_idx.begin(), remote.items[0].block_idx.end()),
      (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(remote.num_kv_receives[0], 6);
  // The empty shard is asked as well.
  ASSERT_EQ(plan.instances[1].items.size(), 1U);
  EXPECT_TRUE(plan.instances[1].items[0].blocks.empty());
  EXPECT_EQ(home.sample_rows, (std::vector<int32_t>{9}));
}

TEST(StepPlan, BlocksBehindAChunkAreNotAsked) {
  SchedulerOptions options = options_of({9, 9});
  options.prefill_chunk_tokens = 4;
  Bench bench(options);
  bench.script->spans = {{0, 1}, {1, 2}};
  bench.add(10, 1);
  const StepPlan& plan = bench.plan();
  EXPECT_TRUE(plan.instances[1].items.empty());
  EXPECT_TRUE(plan.instances[0].sample_rows.empty());
}

TEST(StepPlan, TheBindingMayBeAnyInstanceAtAnyStep) {
  Bench bench(options_of({9, 9, 9}));
  bench.add(4, 8);
  for (const InstanceId binding : {0, 2, 1, 1, 0}) {
    bench.script->binding = binding;
    bench.step();
    EXPECT_EQ(bench.sequences[0]->binding, binding);
    EXPECT_EQ(bench.scheduler->loads()[static_cast<size_t>(binding)].num_sequences, 1);
    EXPECT_EQ(bench.scheduler->loads()[static_cast<size_t>(binding)].num_rows,
              bench.sequences[0]->output.size() == 1 ? 4 : 1);
  }
}

TEST(StepPlan, AFullInstanceGetsNoMoreBindings) {
  SchedulerOptions options = options_of({9, 9});
  options.max_num_seqs = 1;
  Bench bench(options);
  bench.add(2, 4);
  bench.step();
  bench.script->admission_binding = 1;
  bench.add(2, 4);
  bench.step();
  EXPECT_EQ(bench.sequences[0]->binding, 0);
  EXPECT_EQ(bench.sequences[1]->binding, 1);
}

}  // namespace
}  // namespace nanocp::scheduler
