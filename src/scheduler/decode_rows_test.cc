#include "scheduler/decode_rows.h"

#include <gtest/gtest.h>

#include "base/random.h"
#include "scheduler/scheduler_test_bench.h"

namespace nanocp::scheduler {
namespace {

TEST(EntryList, AgreesWithASet) {
  Random random(7);
  std::vector<std::unique_ptr<Entry>> entries;
  for (uint64_t i = 0; i < 200; ++i) {
    entries.push_back(
        std::make_unique<Entry>(Entry{.sequence = nullptr,
                                      .placement = kvcache::KvPlacement(4),
                                      .priority = static_cast<int32_t>(random.below(3)),
                                      .arrival = i,
                                      .max_blocks = 1}));
  }
  EntryList list;
  std::set<Entry*, BySeniority> expected;
  for (int i = 0; i < 20'000; ++i) {
    // Long stretches of mostly inserts and mostly erases.
    const bool inserts = random.below(10) < (i / 1000 % 2 == 0 ? 8U : 2U);
    Entry* entry = entries[random.below(entries.size())].get();
    if (inserts) {
      list.insert(entry);
      expected.insert(entry);
    } else {
      list.erase(entry);
      expected.erase(entry);
    }
    ASSERT_EQ(list.size(), expected.size());
    ASSERT_EQ(list.contains(entry), inserts);
    if (i % 100 != 0) continue;
    list.check_integrity();
    std::vector<Entry*> in_order(list.slots().begin(), list.slots().end());
    std::erase(in_order, nullptr);
    ASSERT_EQ(in_order, std::vector<Entry*>(expected.begin(), expected.end()));
  }
}

TEST(DecodeRows, KeepTheirPlacesWhileOthersLeave) {
  Bench bench(options_of({40}));
  for (int i = 0; i < 4; ++i) bench.add(3, 20);
  bench.step();
  bench.step();
  bench.scheduler->remove(2, FinishReason::kCancelled);
  const StepPlan& plan = bench.plan();
  std::vector<SequenceId> ids;
  for (const SamplingSequence& sample : plan.samples) ids.push_back(sample.id);
  EXPECT_EQ(ids, (std::vector<SequenceId>{1, 4, 3}));
}

// Counters of sequences lag behind until somebody asks.
TEST(DecodeRows, SettleWhenAsked) {
  Bench bench(options_of({40}));
  const Sequence& sequence = bench.add(3, 20);
  for (int i = 0; i < 6; ++i) {
    bench.scheduler->plan_step(PlanTables::kNone);
    bench.scheduler->commit_step();
    bench.append_token(1);
    EXPECT_EQ(bench.scheduler->loads()[0].num_kv_tokens, 3 + i);
  }
  EXPECT_EQ(sequence.num_cached_tokens, 4);  // as it was when the row entered its block
  EXPECT_EQ(bench.scheduler->placement(1)->num_tokens(), 8);
  EXPECT_EQ(sequence.num_cached_tokens, 8);
}

TEST(DecodeRows, WorkCountsRoutesByDomain) {
  SchedulerOptions options = options_of({9, 9, 9, 9});
  options.num_instances_per_domain = 2;
  Bench bench(options);
  bench.script->spans = {{0, 1}, {1, 1}, {2, 1}};
  bench.add(9, 8);
  bench.step();
  bench.step();
  const StepPlan& plan = bench.plan();
  EXPECT_EQ(plan.work[0].num_rows, 1);
  EXPECT_EQ(plan.work[0].num_kv_tokens, 4);
  EXPECT_EQ(plan.work[0].routes, (RouteCount{.near_queries = 1, .far_queries = 1}));
  EXPECT_EQ(plan.work[1].routes, (RouteCount{.near_partials = 1}));
  EXPECT_EQ(plan.work[2].routes, (RouteCount{.far_partials = 1}));
  EXPECT_EQ(plan.work[2].num_kv_tokens, 3);
  EXPECT_EQ(plan.work[3], InstanceWorkCount{});
}

}  // namespace
}  // namespace nanocp::scheduler
