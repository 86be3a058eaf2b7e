#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>

#include "base/random.h"
#include "scheduler/policies/level_fill.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {
namespace {

struct Cluster {
  explicit Cluster(std::vector<int64_t> num_free, int64_t num_blocks = 1000) {
    for (const int64_t free : num_free) {
      InstanceLoad load;
      load.num_blocks = num_blocks;
      load.num_free_blocks = free;
      load.max_sequences = 64;
      load.max_rows = 64;
      loads.push_back(load);
    }
  }
  ClusterView view() const { return {loads, 16, num_admissions}; }

  std::vector<InstanceLoad> loads;
  uint64_t num_admissions = 0;
};

std::unique_ptr<Policy> make(const std::string& name, PolicyOptions options) {
  return std::move(*make_policy(name, options));
}

// A new request of this many blocks.
struct NewRequest {
  explicit NewRequest(int64_t num_blocks) : placement(16) {
    shape.num_prompt_tokens = num_blocks * 16 - 1;
    shape.num_tokens = shape.num_prompt_tokens;
    shape.num_new_blocks = num_blocks;
    shape.max_blocks = num_blocks + 2;
    shape.placement = &placement;
  }
  NewRequest(const NewRequest&) = delete;
  kvcache::KvPlacement placement;
  RequestShape shape;
};

std::vector<int64_t> amounts_of(const AdmissionDecision& decision, size_t num_instances) {
  std::vector<int64_t> amounts(num_instances, 0);
  for (const BlockSpan& span : decision.spans) {
    amounts[static_cast<size_t>(span.holder)] += span.num_blocks;
  }
  return amounts;
}

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

TEST(DcpPolicy, ShortRequestsStayLocalWhereFewestRowsRun) {
  const auto policy = make("dcp", {.num_instances = 3, .min_tokens_per_shard = 320});
  Cluster cluster({995, 990, 900});
  cluster.loads[0].num_sequences = 3;
  cluster.loads[1].num_sequences = 1;
  const NewRequest request(10);
  const auto decision = policy->plan_admission(cluster.view(), request.shape);
  EXPECT_EQ(amounts_of(*decision, 3), (Amounts{0, 10, 0}));
  EXPECT_EQ(decision->binding, 1);
}

TEST(DcpPolicy, SplitsOneThatFitsNowhereAlone) {
  const auto policy = make("dcp", {.num_instances = 3});
  const Cluster cluster({6, 5, 1});
  const NewRequest request(12);
  const auto decision = policy->plan_admission(cluster.view(), request.shape);
  ASSERT_TRUE(decision.has_value());
  EXPECT_EQ(amounts_of(*decision, 3), (Amounts{6, 5, 1}));
  const NewRequest larger(13);
  EXPECT_FALSE(policy->plan_admission(cluster.view(), larger.shape).has_value());
}

TEST(DcpPolicy, WaterFillsALongRequest) {
  const auto policy =
      make("dcp", {.num_instances = 3, .min_tokens_per_shard = 160, .tokens_per_split = 160});
  const Cluster cluster({1000, 900, 800});
  const NewRequest request(300);
  const auto decision = policy->plan_admission(cluster.view(), request.shape);
  EXPECT_EQ(amounts_of(*decision, 3), (Amounts{200, 100, 0}));
  // New K/V stays at home.
  EXPECT_EQ(decision->spans.back().holder, decision->binding);
}

TEST(DcpPolicy, DoesNotSplitForLessThanASplitCosts) {
  const Cluster cluster({1000, 900, 800});
  const NewRequest request(300);  // 200 and 100 would lower the fullest by 100 blocks
  for (const int64_t cost_blocks : {50, 150}) {
    const auto policy = make(
        "dcp",
        {.num_instances = 3, .min_tokens_per_shard = 160, .tokens_per_split = 16 * cost_blocks});
    const auto decision = policy->plan_admission(cluster.view(), request.shape);
    EXPECT_EQ(decision->spans.size(), cost_blocks == 50 ? 2U : 1U);
  }
}

TEST(DcpPolicy, SplitsWithinADomainOfFastLinks) {
  const auto policy =
      make("dcp", {.num_instances = 4, .min_tokens_per_shard = 160, .tokens_per_split = 160});
  const Cluster cluster({700, 700, 900, 600});
  const NewRequest request(400);
  ClusterView view = cluster.view();
  view.num_instances_per_domain = 2;
  // The second domain has the emptiest instance, but the first one stays lower.
  EXPECT_EQ(amounts_of(*policy->plan_admission(view, request.shape), 4), (Amounts{0, 0, 350, 50}));
  const NewRequest huge(1600);
  EXPECT_GT(policy->plan_admission(view, huge.shape)->spans.size(), 2U);
}

TEST(DcpPolicy, RowsCountBesideTokens) {
  Cluster cluster({1000, 990, 980});
  cluster.loads[0].num_sequences = 9;
  cluster.loads[1].num_sequences = 3;
  cluster.loads[2].num_sequences = 9;
  const NewRequest request(2);
  // 10 blocks of 16 tokens are less than 6 rows of 256.
  const auto rows = make("dcp", {.num_instances = 3, .tokens_per_row = 256.0});
  EXPECT_EQ(rows->plan_admission(cluster.view(), request.shape)->binding, 1);
  const auto tokens = make("dcp", {.num_instances = 3, .tokens_per_row = 0.0});
  EXPECT_EQ(tokens->plan_admission(cluster.view(), request.shape)->binding, 0);
}

TEST(DcpPolicy, DoesNotSplitUnderAFullerInstance) {
  const auto policy = make("dcp", {.num_instances = 3, .min_tokens_per_shard = 160});
  const Cluster cluster({1000, 1000, 400});
  const NewRequest request(300);
  EXPECT_EQ(policy->plan_admission(cluster.view(), request.shape)->spans.size(), 1U);
}

TEST(DcpPolicy, GrowthLeavesAFullOrTallTail) {
  const auto policy = make("dcp", {.num_instances = 3, .min_tokens_per_shard = 160});
  NewRequest request(100);
  request.placement.append_block({1, 0});
  request.placement.append_block({0, 0});
  EXPECT_EQ(policy->plan_growth(Cluster({500, 500, 500}).view(), request.shape), 0);
  EXPECT_EQ(policy->plan_growth(Cluster({100, 500, 600}).view(), request.shape), 1);
  EXPECT_EQ(policy->plan_growth(Cluster({0, 0, 600}).view(), request.shape), 2);
  NewRequest brief(3);
  brief.placement.append_block({0, 0});
  EXPECT_EQ(policy->plan_growth(Cluster({100, 500, 600}).view(), brief.shape), 0);
}

TEST(DcpPolicy, SplitRequestsMoveTheirBindingToTheEmptierHolder) {
  const auto policy = make("dcp", {.num_instances = 3});
  Cluster cluster({500, 500, 500});
  kvcache::KvPlacement split(16);
  split.append_block({0, 0});
  split.append_block({1, 0});
  cluster.loads[0].num_sequences = 5;
  cluster.loads[1].num_sequences = 3;
  EXPECT_EQ(policy->plan_binding(cluster.view(), {&split, 0, 1}), 1);
  cluster.loads[1].num_sequences = 4;
  EXPECT_EQ(policy->plan_binding(cluster.view(), {&split, 0, 1}), 0);
  kvcache::KvPlacement local(16);
  local.append_block({0, 0});
  EXPECT_EQ(policy->plan_binding(cluster.view(), {&local, 0, 1}), 0);
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
  for (const char* name : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
    auto policy = make_policy(name, {.num_instances = 2, .degree = 2});
    ASSERT_TRUE(policy.ok());
    EXPECT_EQ((*policy)->name(), name);
  }
}

}  // namespace
}  // namespace nanocp::scheduler
