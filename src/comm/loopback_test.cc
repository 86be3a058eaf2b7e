// Random exchanges over the loopback backend against plain copies.
#include <gtest/gtest.h>

#include <thread>

#include "base/random.h"
#include "comm/loopback/loopback_group.h"

namespace nanocp::comm {
namespace {

using tensor::Matrix;

constexpr int64_t kTimeoutUs = 20'000'000;

ExchangeShape small_shape(int num_instances) {
  return {.num_instances = num_instances,
          .max_rows = 12,
          .query_values = 6,
          .kv_values = 4,
          .partial_values = 6,
          .lse_values = 2,
          .hidden_values = 5,
          .topk = 3};
}

// A value that tells instance, epoch, row and column.
float tag(InstanceId instance, int epoch, int64_t row, int64_t col) {
  return static_cast<float>(instance * 100000 + epoch * 1000 + row * 10 + col);
}

void fill(Matrix m, InstanceId instance, int epoch) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) m.row(r)[c] = tag(instance, epoch, r, c);
  }
}

// Plans of all instances for one epoch: random rows to random destinations.
std::vector<InstancePlan> random_plans(int num_instances, Random& random) {
  std::vector<InstancePlan> plans(static_cast<size_t>(num_instances));
  for (auto& plan : plans) {
    plan.reset(num_instances);
    plan.token_ids.resize(random.below(13));  // idle instances too
  }
  for (InstanceId from = 0; from < num_instances; ++from) {
    auto& plan = plans[static_cast<size_t>(from)];
    for (InstanceId to = 0; to < num_instances; ++to) {
      if (to == from) continue;
      for (int32_t row = 0; row < plan.num_rows(); ++row) {
        if (random.below(3) != 0) continue;
        plan.query_sends.add(to, row);
        plans[static_cast<size_t>(to)].num_query_receives[static_cast<size_t>(from)]++;
        if (random.below(2) != 0) continue;
        plan.kv_sends.add(to, row);
        plans[static_cast<size_t>(to)].num_kv_receives[static_cast<size_t>(from)]++;
      }
    }
  }
  return plans;
}

class ShardExchangeThread {
 public:
  ShardExchangeThread(LoopbackGroup& group, const ExchangeShape& shape, InstanceId instance)
      : shape_(shape), instance_(instance), exchange_(group.make_shard_exchange(instance)) {}

  void run(const std::vector<std::vector<InstancePlan>>& epochs) {
    for (size_t e = 0; e < epochs.size(); ++e) run_epoch(epochs[e], static_cast<int>(e));
  }

 private:
  void run_epoch(const std::vector<InstancePlan>& plans, int epoch) {
    const InstancePlan& plan = plans[static_cast<size_t>(instance_)];
    const Matrix q = q_.resize(plan.num_rows(), shape_.query_values);
    const Matrix kv = kv_.resize(plan.num_rows(), shape_.kv_values);
    fill(q, instance_, epoch);
    fill(kv, instance_ + 50, epoch);
    ASSERT_TRUE(exchange_->send(plan, q, kv).ok());
    for (InstanceId from = 0; from < shape_.num_instances; ++from) answer(plans, from, epoch);
    for (InstanceId to = 0; to < shape_.num_instances; ++to) {
      const auto rows = plan.query_sends.rows(to);
      if (rows.empty()) continue;
      auto partials = exchange_->wait_return(to);
      ASSERT_TRUE(partials.ok()) << partials.error().message;
      for (size_t i = 0; i < rows.size(); ++i) {
        const auto slot = static_cast<int64_t>(i);
        EXPECT_EQ(partials->out.row(slot)[1], tag(instance_, epoch, rows[i], 1) + 0.5F);
        EXPECT_EQ(partials->lse.row(slot)[0], static_cast<float>(to));
      }
    }
  }

  void answer(const std::vector<InstancePlan>& plans, InstanceId from, int epoch) {
    const auto& sender = plans[static_cast<size_t>(from)];
    const auto queries = sender.query_sends.rows(instance_);
    if (queries.empty()) return;
    auto received = exchange_->wait_rows(from);
    ASSERT_TRUE(received.ok()) << received.error().message;
    const auto kv_rows = sender.kv_sends.rows(instance_);
    for (size_t i = 0; i < kv_rows.size(); ++i) {
      EXPECT_EQ(received->kv.row(static_cast<int64_t>(i))[3], tag(from + 50, epoch, kv_rows[i], 3));
    }
    const Partials slots = exchange_->return_slots(from);
    for (size_t i = 0; i < queries.size(); ++i) {
      const auto slot = static_cast<int64_t>(i);
      EXPECT_EQ(received->q.row(slot)[5], tag(from, epoch, queries[i], 5));
      for (int64_t c = 0; c < slots.out.cols; ++c) {
        slots.out.row(slot)[c] = received->q.row(slot)[c] + 0.5F;
      }
      std::fill_n(slots.lse.row(slot), slots.lse.cols, static_cast<float>(instance_));
    }
    exchange_->post_return(from);
  }

  const ExchangeShape shape_;
  const InstanceId instance_;
  std::unique_ptr<ShardExchange> exchange_;
  tensor::MatrixBuffer q_, kv_;
};

TEST(Loopback, ShardExchangeCarriesEveryRow) {
  for (int n : {1, 2, 5, 16}) {
    const ExchangeShape shape = small_shape(n);
    LoopbackGroup group(shape, kTimeoutUs);
    Random random(static_cast<uint64_t>(n));
    std::vector<std::vector<InstancePlan>> epochs;
    for (int e = 0; e < 40; ++e) epochs.push_back(random_plans(n, random));
    std::vector<std::thread> threads;
    for (InstanceId i = 0; i < n; ++i) {
      threads.emplace_back([&, i] { ShardExchangeThread(group, shape, i).run(epochs); });
    }
    for (auto& thread : threads) thread.join();
  }
}

// Row r of instance i in epoch e is routed by this seed, so that everybody can recompute it.
std::vector<int32_t> routed_experts(InstanceId instance, int epoch, int64_t row, int num_experts) {
  Random random(static_cast<uint64_t>(instance * 7919 + epoch * 131 + row));
  std::vector<int32_t> experts;
  while (experts.size() < 3) {
    const auto e = static_cast<int32_t>(random.below(static_cast<uint64_t>(num_experts)));
    if (std::find(experts.begin(), experts.end(), e) == experts.end()) experts.push_back(e);
  }
  return experts;
}

void run_dispatch_epoch(ExpertDispatcher& dispatcher, const std::vector<InstanceId>& owners,
                        InstanceId self, int n, int epoch) {
  const int64_t rows = Random(static_cast<uint64_t>(self * 31 + epoch)).between(0, 12);
  const auto num_experts = static_cast<int>(owners.size());
  tensor::MatrixBuffer x_buffer, out_buffer;
  const Matrix x = x_buffer.resize(rows, 5);
  fill(x, self, epoch);
  std::vector<int32_t> idx;
  for (int64_t r = 0; r < rows; ++r) {
    for (const int32_t e : routed_experts(self, epoch, r, num_experts)) idx.push_back(e);
  }
  const std::vector<float> weights(idx.size(), 0.25F);
  ASSERT_TRUE(dispatcher.dispatch({x, idx, weights, owners}).ok());
  for (InstanceId from = 0; from < n; ++from) {
    auto received = dispatcher.wait_rows(from);
    ASSERT_TRUE(received.ok()) << received.error().message;
    const Matrix sums = dispatcher.combine_slots(from);
    for (int64_t i = 0; i < received->x.rows; ++i) {  // each expert doubles its input
      float factor = 0.0F;
      for (size_t k = 0; k < 3; ++k) {
        const auto at = static_cast<size_t>(i) * 3 + k;
        if (owners[static_cast<size_t>(received->topk_idx[at])] != self) continue;
        factor += 2.0F * received->topk_weights[at];
      }
      EXPECT_GT(factor, 0.0F);
      for (int64_t c = 0; c < 5; ++c) sums.row(i)[c] = factor * received->x.row(i)[c];
    }
    dispatcher.post_combine(from);
  }
  const Matrix out = out_buffer.resize(rows, 5);
  std::fill_n(out.data, rows * 5, 1.0F);
  ASSERT_TRUE(dispatcher.combine(out).ok());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < 5; ++c) EXPECT_EQ(out.row(r)[c], 1.0F + 1.5F * tag(self, epoch, r, c));
  }
}

TEST(Loopback, DispatchAndCombineSumEveryExpertOnce) {
  for (int n : {1, 2, 3, 8, 16}) {
    LoopbackGroup group(small_shape(n), kTimeoutUs);
    std::vector<InstanceId> owners;
    for (int e = 0; e < 7; ++e) owners.push_back(e * n / 7);
    std::vector<std::thread> threads;
    for (InstanceId i = 0; i < n; ++i) {
      threads.emplace_back([&, i] {
        auto dispatcher = group.make_expert_dispatcher(i);
        for (int e = 0; e < 40; ++e) run_dispatch_epoch(*dispatcher, owners, i, n, e);
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

TEST(Loopback, WaitEndsAtTheDeadlineAndNamesBothSides) {
  LoopbackGroup group(small_shape(3), 30'000);
  auto dispatcher = group.make_expert_dispatcher(1);
  const std::vector<InstanceId> owners = {0, 1, 2, 2};
  ASSERT_TRUE(dispatcher->dispatch({{}, {}, {}, owners}).ok());
  const auto result = dispatcher->wait_rows(2);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kDeadlineExceeded);
  EXPECT_NE(result.error().message.find(
                "instance 1 waited 30 ms for the dispatch of instance 2 (epoch 1, last seen 0)"),
            std::string::npos)
      << result.error().message;
}

TEST(Loopback, AbortEndsAllWaits) {
  LoopbackGroup group(small_shape(2), kTimeoutUs);
  auto dispatcher = group.make_expert_dispatcher(0);
  const std::vector<InstanceId> owners = {0, 1};
  ASSERT_TRUE(dispatcher->dispatch({{}, {}, {}, owners}).ok());
  std::thread other([&] { group.abort("instance 1 ran out of memory"); });
  const auto result = dispatcher->wait_rows(1);
  other.join();
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kAborted);
  EXPECT_NE(result.error().message.find("instance 1 ran out of memory"), std::string::npos);
  EXPECT_FALSE(dispatcher->wait_rows(1).ok());
}

}  // namespace
}  // namespace nanocp::comm
