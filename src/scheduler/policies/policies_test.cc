#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "base/random.h"
#include "scheduler/policies/level_fill.h"
#include "scheduler/policies/policy_test_bench.h"

namespace nanocp::scheduler {
namespace {

using Amounts = std::vector<int64_t>;

TEST(LevelFill, RaisesTheLowestFirst) {
  EXPECT_EQ(level_fill(std::vector<FillTarget>{{0, 10}, {3, 10}, {8, 10}}, 5), (Amounts{4, 1, 0}));
  EXPECT_EQ(level_fill(std::vector<FillTarget>{{0, 2}, {3, 10}}, 5), (Amounts{2, 3}));
  EXPECT_EQ(level_fill(std::vector<FillTarget>{{0, 2}, {3, 2}}, 5), std::nullopt);
  EXPECT_EQ(level_fill(std::vector<FillTarget>{{5, 2}, {3, 2}}, 0), (Amounts{0, 0}));
}

// Against handing out one block at a time.
TEST(LevelFill, AgreesWithANaiveOracle) {
  Random random(3);
  for (int round = 0; round < 2000; ++round) {
    std::vector<FillTarget> targets;
    int64_t room = 0;
    for (int64_t i = random.between(1, 6); i > 0; --i) {
      targets.push_back({random.between(0, 20), random.between(0, 10)});
      room += targets.back().capacity;
    }
    const int64_t amount = random.between(0, room);
    const auto amounts = level_fill(targets, amount);
    ASSERT_TRUE(amounts.has_value());
    EXPECT_EQ(std::accumulate(amounts->begin(), amounts->end(), int64_t{0}), amount);

    Amounts naive(targets.size(), 0);
    for (int64_t block = 0; block < amount; ++block) {
      size_t best = targets.size();
      for (size_t i = 0; i < targets.size(); ++i) {
        if (naive[i] == targets[i].capacity) continue;
        if (best == targets.size() ||
            targets[i].level + naive[i] < targets[best].level + naive[best]) {
          best = i;
        }
      }
      ++naive[best];
    }
    EXPECT_EQ(filled_level(targets, *amounts), filled_level(targets, naive));
    for (size_t i = 0; i < targets.size(); ++i) EXPECT_LE((*amounts)[i], targets[i].capacity);
  }
}

TEST(BoundPolicy, RoundRobinGoesAround) {
  const auto policy = make("bound", {.num_instances = 3, .router = "round_robin"});
  Cluster cluster({100, 100, 5});
  const NewRequest request(10);
  std::vector<InstanceId> chosen;
  for (; cluster.num_admissions < 4; ++cluster.num_admissions) {
    const auto decision = policy->plan_admission(cluster.view(), request.shape);
    chosen.push_back(decision ? decision->binding : kNoInstance);
  }
  // At the turn of instance 2, which is too full, the request waits.
  EXPECT_EQ(chosen, (std::vector<InstanceId>{0, 1, kNoInstance, 0}));
}

TEST(BoundPolicy, AnyInstanceTakesOneWithRoomWhereOthersWait) {
  Cluster cluster({5, 50, 40});
  cluster.loads[1].num_sequences = 9;
  cluster.loads[2].num_sequences = 8;
  const NewRequest request(10);
  const auto any = make("bound", {.num_instances = 3, .router = "any_instance"});
  const auto requests = make("bound", {.num_instances = 3, .router = "least_requests"});
  EXPECT_EQ(any->plan_admission(cluster.view(), request.shape)->binding, 1);
  EXPECT_FALSE(requests->plan_admission(cluster.view(), request.shape).has_value());
}

TEST(BoundPolicy, PowerOfTwoTakesTheEmptierOfTwo) {
  const auto policy = make("bound", {.num_instances = 4, .router = "power_of_two"});
  Cluster cluster({100, 100, 100, 100});
  cluster.loads[3].num_sequences = 50;
  const NewRequest request(10);
  std::vector<int> count(4, 0);
  for (; cluster.num_admissions < 400; ++cluster.num_admissions) {
    ++count[static_cast<size_t>(policy->plan_admission(cluster.view(), request.shape)->binding)];
  }
  // The full one is taken only when both draws name it, 25 times in 400; ties go to lower numbers.
  EXPECT_LT(count[3], 60);
  for (int i = 0; i < 3; ++i) EXPECT_GT(count[static_cast<size_t>(i)], 50);
}

TEST(BoundPolicy, RoutersPickTheLeastLoaded) {
  Cluster cluster({100, 90, 80});
  cluster.loads[0].num_sequences = 5;
  cluster.loads[1].num_sequences = 2;
  cluster.loads[2].num_sequences = 3;
  const NewRequest request(10);
  const auto requests = make("bound", {.num_instances = 3, .router = "least_requests"});
  const auto kv = make("bound", {.num_instances = 3, .router = "least_kv"});
  EXPECT_EQ(requests->plan_admission(cluster.view(), request.shape)->binding, 1);
  EXPECT_EQ(kv->plan_admission(cluster.view(), request.shape)->binding, 0);
  const NewRequest large(101);
  EXPECT_FALSE(kv->plan_admission(cluster.view(), large.shape).has_value());
}

TEST(UniformCpPolicy, SpreadsEvenlyOverTheLeastLoaded) {
  const auto policy = make("uniform_cp", {.num_instances = 4, .degree = 3});
  const Cluster cluster({500, 100, 700, 600});
  const NewRequest request(32);
  const auto decision = policy->plan_admission(cluster.view(), request.shape);
  ASSERT_TRUE(decision.has_value());
  EXPECT_EQ(amounts_of(*decision, 4), (Amounts{10, 0, 11, 11}));
}

TEST(UniformCpPolicy, GrowsEvenlyWithinItsDegree) {
  const auto policy = make("uniform_cp", {.num_instances = 3, .degree = 2});
  const Cluster cluster({500, 900, 500});
  NewRequest request(3);
  request.placement.append_block({0, 1});
  request.placement.append_block({2, 1});
  request.placement.append_block({0, 2});
  EXPECT_EQ(policy->plan_growth(cluster.view(), request.shape), 2);
  EXPECT_FALSE(policy->permits_growth(cluster.view(), request.shape, 1));
}

TEST(UniformCpPolicy, CapacityIsThatOfTheSmallestHolder) {
  const auto policy = make("uniform_cp", {.num_instances = 3, .degree = 2});
  const NewRequest request(3);
  EXPECT_EQ(policy->max_request_blocks(Amounts{10, 30, 20}, request.shape), 40);
}

TEST(ThresholdCpPolicy, SplitsOnlyLongPrompts) {
  const auto policy =
      make("threshold_cp", {.num_instances = 4, .degree = 4, .threshold_tokens = 320});
  const Cluster cluster({100, 100, 100, 100});
  const NewRequest at_threshold(20);
  const NewRequest longer(21);
  EXPECT_EQ(policy->plan_admission(cluster.view(), at_threshold.shape)->spans.size(), 1U);
  EXPECT_EQ(policy->plan_admission(cluster.view(), longer.shape)->spans.size(), 4U);
}

TEST(MakePolicy, ErrorsNameTheChoice) {
  const auto message = [](const std::string& name, const PolicyOptions& options) {
    auto policy = make_policy(name, options);
    return policy.ok() ? std::string() : policy.error().message;
  };
  EXPECT_NE(message("best", {}).find("use bound, uniform_cp, threshold_cp or dcp"),
            std::string::npos);
  EXPECT_NE(message("bound", {.router = "x"}).find("round_robin"), std::string::npos);
  EXPECT_NE(message("uniform_cp", {.num_instances = 2, .degree = 3}).find("degree 3 on 2"),
            std::string::npos);
  EXPECT_NE(message("threshold_cp", {.degree = 0}).find("degree 0"), std::string::npos);
  EXPECT_NE(message("dcp", {.min_tokens_per_shard = 0}).find("min_tokens_per_shard"),
            std::string::npos);
  for (const char* name : {"bound", "uniform_cp", "dcp"}) {
    EXPECT_NE(message(name, {.num_instances = 2, .max_degree = 3})
                  .find("max_cp_degree is 3 on 2 instances: it must be between 1"),
              std::string::npos);
    EXPECT_NE(message(name, {.num_instances = 2, .max_degree = -1}).find("max_cp_degree is -1"),
              std::string::npos);
  }
  EXPECT_NE(message("threshold_cp", {.num_instances = 4, .degree = 3, .max_degree = 2})
                .find("degree 3: a request may have a context-parallel degree of 2 at most"),
            std::string::npos);
  for (const char* name : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
    auto policy = make_policy(name, {.num_instances = 2, .degree = 2});
    ASSERT_TRUE(policy.ok());
    EXPECT_EQ((*policy)->name(), name);
  }
}

}  // namespace
}  // namespace nanocp::scheduler
