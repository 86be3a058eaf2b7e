// All instances make the same ordered list of exchanges in every step, that of
// model::exchange_order, whether they have rows or not and wherever K/V is held. The GPU runner
// compares its graphs with the same list when it starts.
#include "model/exchange_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>

#include "comm/loopback/loopback_group.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "model/instance_model.h"
#include "scheduler/scheduler.h"

namespace nanocp::e2e {
namespace {

using model::ExchangeMark;

// What one instance begins in a step, in order.
class ExchangeLog {
 public:
  void begin(ExchangeMark::Kind kind) {
    const auto num_before = std::count_if(marks_.begin(), marks_.end(),
                                          [kind](const ExchangeMark& m) { return m.kind == kind; });
    marks_.push_back({kind, static_cast<int32_t>(num_before)});
  }
  std::vector<ExchangeMark> take() { return std::exchange(marks_, {}); }

 private:
  std::vector<ExchangeMark> marks_;
};

class LoggedShardExchange final : public comm::ShardExchange {
 public:
  LoggedShardExchange(std::unique_ptr<comm::ShardExchange> inner, ExchangeLog& log)
      : inner_(std::move(inner)), log_(log) {}
  Status send(const InstancePlan& plan, tensor::ConstMatrix q, tensor::ConstMatrix kv) override {
    log_.begin(ExchangeMark::Kind::kShard);
    return inner_->send(plan, q, kv);
  }
  Result<Received> wait_rows(InstanceId source) override { return inner_->wait_rows(source); }
  comm::Partials return_slots(InstanceId source) override { return inner_->return_slots(source); }
  void post_return(InstanceId source) override { inner_->post_return(source); }
  Result<comm::ConstPartials> wait_return(InstanceId destination) override {
    return inner_->wait_return(destination);
  }

 private:
  std::unique_ptr<comm::ShardExchange> inner_;
  ExchangeLog& log_;
};

class LoggedDispatcher final : public comm::ExpertDispatcher {
 public:
  LoggedDispatcher(std::unique_ptr<comm::ExpertDispatcher> inner, ExchangeLog& log)
      : inner_(std::move(inner)), log_(log) {}
  Status dispatch(const Rows& rows) override {
    log_.begin(ExchangeMark::Kind::kExpert);
    return inner_->dispatch(rows);
  }
  Result<Received> wait_rows(InstanceId source) override { return inner_->wait_rows(source); }
  tensor::Matrix combine_slots(InstanceId source) override { return inner_->combine_slots(source); }
  void post_combine(InstanceId source) override { inner_->post_combine(source); }
  Status combine(tensor::Matrix out) override { return inner_->combine(out); }

 private:
  std::unique_ptr<comm::ExpertDispatcher> inner_;
  ExchangeLog& log_;
};

constexpr int32_t kNumInstances = 4;
constexpr int32_t kBlockSize = 4;
constexpr int64_t kNumBlocks = 64;
constexpr int32_t kMaxRows = 64;

// Instances without a runner, so that their exchanges can be listened to.
class Group {
 public:
  explicit Group(const TestModel& test)
      : group_(model::make_exchange_shape(*test.spec, kNumInstances, kMaxRows), 10'000'000),
        logs_(kNumInstances) {
    for (InstanceId i = 0; i < kNumInstances; ++i) {
      ExchangeLog& log = logs_[static_cast<size_t>(i)];
      instances_.push_back(std::make_unique<model::InstanceModel>(
          *test.spec, *test.weights,
          model::InstanceModelOptions{.instance = i,
                                      .num_instances = kNumInstances,
                                      .block_size = kBlockSize,
                                      .num_blocks = kNumBlocks},
          std::make_unique<LoggedShardExchange>(group_.make_shard_exchange(i), log),
          std::make_unique<LoggedDispatcher>(group_.make_expert_dispatcher(i), log)));
    }
  }

  // [num_instances] the exchanges of the step.
  std::vector<std::vector<ExchangeMark>> run(const scheduler::StepPlan& plan) {
    std::vector<std::thread> threads;
    for (size_t i = 0; i < instances_.size(); ++i) {
      threads.emplace_back([this, &plan, i] {
        const auto logits = instances_[i]->forward(plan.instances[i]);
        if (!logits.ok()) group_.abort(logits.error().message);
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<std::vector<ExchangeMark>> orders;
    for (ExchangeLog& log : logs_) orders.push_back(log.take());
    return orders;
  }

 private:
  comm::LoopbackGroup group_;
  std::vector<ExchangeLog> logs_;
  std::vector<std::unique_ptr<model::InstanceModel>> instances_;
};

class ExchangeOrder : public testing::TestWithParam<std::string> {};

TEST_P(ExchangeOrder, IsTheSameOnAllInstancesInEveryStep) {
  const TestModel test = load_test_model(fixture_dir(GetParam()), "config.json");
  const std::vector<ExchangeMark> expected = model::exchange_order(*test.spec);
  ASSERT_EQ(std::count_if(expected.begin(), expected.end(),
                          [](const auto& m) { return m.kind == ExchangeMark::Kind::kShard; }),
            test.spec->num_layers);
  scheduler::SchedulerOptions options;
  options.num_blocks.assign(kNumInstances, kNumBlocks);
  options.block_size = kBlockSize;
  options.max_batched_tokens = kMaxRows;
  options.max_num_seqs = 8;
  scheduler::Scheduler scheduler(options, make_random_policy(9));
  std::vector<request::Sequence> sequences(2);  // fewer than instances: some have no rows
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i].id = i + 1;
    sequences[i].request.prompt.assign(i == 0 ? 30 : 3, 5);
    sequences[i].request.max_tokens = 40;
    ASSERT_TRUE(scheduler.add(&sequences[i]).ok());
  }
  Group group(test);
  int num_idle = 0;
  for (int step = 0; step < 20; ++step) {
    const scheduler::StepPlan& plan = scheduler.plan_step();
    scheduler.commit_step();
    for (const auto& order : group.run(plan)) ASSERT_EQ(order, expected) << "step " << step;
    for (const InstancePlan& instance : plan.instances) num_idle += instance.num_rows() == 0;
    for (const scheduler::ScheduledChunk& chunk : plan.chunks) {
      if (chunk.samples) sequences[chunk.sequence - 1].output.push_back(7);
    }
  }
  EXPECT_GT(num_idle, 20);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, ExchangeOrder,
                         testing::Values("qwen3_moe", "deepseek_v3", "gpt_oss"),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace nanocp::e2e
