// Every kind of damage to a good plan is found.
#include "scheduler/check_plan.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>

#include "scheduler/scheduler.h"

namespace nanocp::scheduler {
namespace {

// Two sequences on three instances: one split over all of them, one local.
class CheckPlan : public testing::Test {
 protected:
  CheckPlan() {
    SchedulerOptions options;
    options.num_blocks = limits_.num_blocks;
    options.block_size = limits_.block_size;
    auto policy = make_policy("uniform_cp", {.num_instances = 3, .degree = 3});
    scheduler_ = std::make_unique<Scheduler>(options, std::move(*policy));
    for (size_t i = 0; i < 2; ++i) {
      sequences_[i].id = i + 1;
      sequences_[i].request.prompt.assign(i == 0 ? 22 : 3, 5);
      sequences_[i].request.max_tokens = 5;
      EXPECT_TRUE(scheduler_->add(&sequences_[i]).ok());
    }
    plan_ = scheduler_->plan_step();
    home_ = static_cast<size_t>(plan_.chunks[0].binding);
    away_ = (home_ + 1) % 3;
  }

  std::string damage(const std::function<void(StepPlan&)>& change) const {
    StepPlan plan = plan_;
    change(plan);
    const Status status = check_plan(plan, limits_);
    return status.ok() ? "nothing found" : status.error().message;
  }
  void expect_found(const std::string& what, const std::function<void(StepPlan&)>& change) const {
    EXPECT_NE(damage(change).find(what), std::string::npos) << damage(change);
  }

  PlanLimits limits_{.block_size = 4, .num_blocks = {8, 8, 8}};
  request::Sequence sequences_[2];
  std::unique_ptr<Scheduler> scheduler_;
  StepPlan plan_;
  size_t home_ = 0;  // binding of the split sequence
  size_t away_ = 0;  // another holder of it
};

TEST_F(CheckPlan, AcceptsAGoodPlan) {
  EXPECT_EQ(damage([](StepPlan&) {}), "nothing found");
}

TEST_F(CheckPlan, FindsWrongRowsAndSamples) {
  expect_found("rows differ", [&](StepPlan& plan) { ++plan.instances[home_].positions[2]; });
  expect_found("positions size",
               [&](StepPlan& plan) { plan.instances[home_].positions.pop_back(); });
  expect_found("sample task", [&](StepPlan& plan) { --plan.instances[home_].sample_rows[0]; });
  expect_found("sample_tasks differ", [&](StepPlan& plan) { plan.sample_tasks[home_].clear(); });
}

TEST_F(CheckPlan, FindsWrongAppends) {
  expect_found("appended 0 times",
               [&](StepPlan& plan) { plan.instances[home_].appends.pop_back(); });
  expect_found("two appends", [&](StepPlan& plan) {
    auto& appends = plan.instances[home_].appends;
    appends[4].slot = appends[0].slot;
  });
  expect_found("wrong offset", [&](StepPlan& plan) { ++plan.instances[home_].appends[0].slot; });
  expect_found("out of range",
               [&](StepPlan& plan) { plan.instances[home_].appends[0].slot += 4000; });
  expect_found("does not exist",
               [&](StepPlan& plan) { plan.instances[away_].appends[0].row = 99; });
}

TEST_F(CheckPlan, FindsWrongTables) {
  expect_found("num_query_receives",
               [&](StepPlan& plan) { ++plan.instances[away_].num_query_receives[home_]; });
  expect_found("num_kv_receives",
               [&](StepPlan& plan) { ++plan.instances[away_].num_kv_receives[home_]; });
  expect_found("to itself", [&](StepPlan& plan) {
    plan.instances[home_].query_sends.add(static_cast<InstanceId>(home_), 0);
  });
}

TEST_F(CheckPlan, FindsWrongItems) {
  expect_found("differ", [&](StepPlan& plan) { plan.instances[away_].items.pop_back(); });
  expect_found("sees", [&](StepPlan& plan) {
    plan.instances[home_].items.erase(plan.instances[home_].items.begin());
  });
  expect_found("position",
               [&](StepPlan& plan) { ++plan.instances[home_].items[0].first_position; });
  expect_found("sees", [&](StepPlan& plan) {
    auto& item = plan.instances[home_].items[0];
    item.blocks = item.blocks.first(item.blocks.size() - 1);
    item.block_idx = item.block_idx.first(item.blocks.size());
  });
  expect_found("behind a received one", [&](StepPlan& plan) {
    auto& items = plan.instances[away_].items;
    AttentionItem local = items.back();
    local.source = static_cast<InstanceId>(away_);
    items.push_back(local);
  });
}

}  // namespace
}  // namespace nanocp::scheduler
