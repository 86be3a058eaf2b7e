#include <gtest/gtest.h>

#include "scheduler/policies/placement_score.h"
#include "scheduler/policies/policy_test_bench.h"

namespace nanocp::scheduler {
namespace {

using Amounts = std::vector<int64_t>;

// Splits cost what ten blocks do, rows almost nothing.
constexpr PlacementCosts kCheapSplits = {.row = 1.0,
                                         .row_of_fullest = 1.0,
                                         .near_split = 160.0,
                                         .near_query = 1.0,
                                         .near_partial = 1.0,
                                         .far_split = 1600.0,
                                         .far_query = 10.0,
                                         .far_partial = 10.0};

std::unique_ptr<Policy> make_dcp(const PlacementCosts& costs = kCheapSplits,
                                 int64_t min_tokens_per_shard = 160) {
  return make("dcp", {.min_tokens_per_shard = min_tokens_per_shard, .costs = costs});
}

Amounts placed(const Policy& policy, const ClusterView& view, const NewRequest& request) {
  const auto decision = policy.plan_admission(view, request.shape);
  if (!decision) return {};
  // New K/V stays at home.
  EXPECT_EQ(decision->spans.back().holder, decision->binding);
  return amounts_of(*decision, view.instances.size());
}

// Rows of `binding` that see K/V on `holder`, all in one domain.
void add_rows(InstanceId binding, InstanceId holder, int32_t num_rows, Cluster& cluster) {
  add_route(binding, holder, num_rows, {8}, cluster.loads[static_cast<size_t>(binding)].routes,
            cluster.loads[static_cast<size_t>(holder)].routes);
}

TEST(DcpPolicy, ShortRequestsStayLocalWhereRowsAndTokensAreLeast) {
  Cluster cluster({1000, 990, 980});
  cluster.loads[0].num_sequences = 9;
  cluster.loads[1].num_sequences = 3;
  cluster.loads[2].num_sequences = 9;
  const NewRequest request(2);
  // 10 blocks of 16 tokens are less than 6 rows.
  EXPECT_EQ(placed(*make_dcp({.row = 90.0, .row_of_fullest = 170.0}), cluster.view(), request),
            (Amounts{0, 2, 0}));
  EXPECT_EQ(placed(*make_dcp({.row = 0.0, .row_of_fullest = 0.0}), cluster.view(), request),
            (Amounts{2, 0, 0}));
}

TEST(DcpPolicy, SplitsOneThatFitsNowhereAlone) {
  const auto policy = make_dcp({}, 4096);
  const Cluster cluster({6, 5, 1});
  EXPECT_EQ(amounts_of(*policy->plan_admission(cluster.view(), NewRequest(12).shape), 3),
            (Amounts{6, 5, 1}));
  EXPECT_FALSE(policy->plan_admission(cluster.view(), NewRequest(13).shape).has_value());
}

TEST(DcpPolicy, SpreadsALongRequestEvenly) {
  const Cluster cluster({1000, 1000, 1000, 1000});
  EXPECT_EQ(placed(*make_dcp(), cluster.view(), NewRequest(400)), (Amounts{100, 100, 100, 100}));
}

// Not all that would make the levels equal.
TEST(DcpPolicy, GivesSomewhatMoreToLowerInstances) {
  const Amounts amounts =
      placed(*make_dcp(), Cluster({1000, 960, 960, 960}).view(), NewRequest(400));
  EXPECT_GT(amounts[0], amounts[1] + 5);
  EXPECT_LT(amounts[0], amounts[1] + 40);
}

TEST(DcpPolicy, SplitsOnlyWhatASplitIsCheaperThan) {
  const Cluster cluster({1000, 1000, 1000});
  PlacementCosts costs = kCheapSplits;
  costs.near_split = 16 * 150.0;
  EXPECT_EQ(placed(*make_dcp(costs), cluster.view(), NewRequest(600)), (Amounts{200, 200, 200}));
  costs.near_split = 16 * 450.0;
  EXPECT_EQ(placed(*make_dcp(costs), cluster.view(), NewRequest(600)), (Amounts{600, 0, 0}));
}

TEST(DcpPolicy, QueriesKeepTheDegreeDown) {
  const Cluster cluster({1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000});
  PlacementCosts costs = kCheapSplits;
  const auto degree = [&] {
    const auto decision = make_dcp(costs)->plan_admission(cluster.view(), NewRequest(160).shape);
    return decision->spans.size();
  };
  EXPECT_EQ(degree(), 8U);
  costs.near_query = 16 * 15.0;
  EXPECT_GT(degree(), 1U);
  EXPECT_LT(degree(), 5U);
}

TEST(DcpPolicy, DoesNotSplitUnderAFullerInstance) {
  const Cluster cluster({1000, 1000, 400});
  EXPECT_EQ(placed(*make_dcp({}), cluster.view(), NewRequest(300)), (Amounts{300, 0, 0}));
}

TEST(DcpPolicy, SplitsWithinADomainAndWaitsForOne) {
  const Cluster cluster({700, 700, 740, 300});
  ClusterView view = cluster.view();
  view.num_instances_per_domain = 2;
  const Amounts amounts = placed(*make_dcp(), view, NewRequest(400));
  EXPECT_EQ(amounts[0] + amounts[1], 400);
  EXPECT_GT(amounts[0], 0);
  EXPECT_GT(amounts[1], 0);
  // A domain would have room once others are gone.
  EXPECT_FALSE(make_dcp()->plan_admission(view, NewRequest(1600).shape).has_value());
  // No domain ever has that much.
  const Cluster empty({1000, 1000, 1000, 1000});
  view = empty.view();
  view.num_instances_per_domain = 2;
  EXPECT_GT(make_dcp()->plan_admission(view, NewRequest(2500).shape)->spans.size(), 2U);
}

std::unique_ptr<Policy> make_with(const DcpParts& parts, const PlacementCosts& costs) {
  return make("dcp", {.min_tokens_per_shard = 160, .costs = costs, .parts = parts});
}

TEST(DcpPolicy, KeepsTheBudgetOnlyWhenToldTo) {
  PlacementCosts costs = kCheapSplits;
  costs.budget = 16 * 150.0;
  const DcpParts keeps = {.keeps_budget = true};
  Cluster cluster({900, 900});
  const NewRequest small(20);
  const NewRequest large(200);  // 100 on each, beside the 100 that are there
  // With nobody running a request is never held back.
  EXPECT_TRUE(make_with(keeps, costs)->plan_admission(cluster.view(), large.shape).has_value());
  cluster.loads[0].num_sequences = 1;
  EXPECT_FALSE(make_with(keeps, costs)->plan_admission(cluster.view(), large.shape).has_value());
  EXPECT_TRUE(make_with(keeps, costs)->plan_admission(cluster.view(), small.shape).has_value());
  EXPECT_TRUE(make_with({}, costs)->plan_admission(cluster.view(), large.shape).has_value());
  // Rows take their part of it.
  cluster.loads[0].num_sequences = 60;
  costs.row_of_fullest = 16.0;
  EXPECT_FALSE(make_with(keeps, costs)->plan_admission(cluster.view(), small.shape).has_value());
  costs.budget = 0.0;
  EXPECT_FALSE(make_policy("dcp", {.costs = costs, .parts = keeps}).ok());
}

TEST(DcpPolicy, PartsCanBeLeftOut) {
  const Cluster even({1000, 1000, 1000, 1000});
  const NewRequest request(400);
  EXPECT_EQ(placed(*make_with({.splits = false}, kCheapSplits), even.view(), request),
            (Amounts{400, 0, 0, 0}));
  ClusterView view = even.view();
  view.num_instances_per_domain = 2;
  EXPECT_EQ(placed(*make_with(
                       {.stays_in_domain = false},
                       {.near_split = 1.0, .far_split = 1.0, .far_query = 1.0, .far_partial = 1.0}),
                   view, request)
                .back(),
            100);
  Cluster uneven({500, 500});
  uneven.loads[0].num_sequences = 5;
  kvcache::KvPlacement split(16);
  split.append_block({0, 0});
  split.append_block({1, 0});
  EXPECT_EQ(make_with({.moves_bindings = false}, kCheapSplits)
                ->plan_binding(uneven.view(), {&split, 0, 1}),
            0);
  NewRequest grown(100);
  grown.placement.append_block({0, 0});
  EXPECT_EQ(make_with({.moves_tails = false}, kCheapSplits)
                ->plan_growth(Cluster({100, 500, 600}).view(), grown.shape),
            0);
}

std::unique_ptr<Policy> make_limited(int32_t num_instances, int32_t max_degree) {
  return make("dcp", {.num_instances = num_instances,
                      .min_tokens_per_shard = 160,
                      .max_degree = max_degree,
                      .costs = kCheapSplits});
}

TEST(DcpPolicy, DegreesStayWithinTheLimit) {
  const Cluster even({1000, 1000, 1000, 1000});
  const NewRequest request(400);
  for (int32_t limit = 1; limit <= 4; ++limit) {
    const auto decision = make_limited(4, limit)->plan_admission(even.view(), request.shape);
    EXPECT_EQ(std::ssize(decision->spans), limit);
  }
  // Not even for lack of room, and where there is enough it is found.
  const Cluster uneven({150, 300, 150, 150});
  EXPECT_FALSE(make_limited(4, 2)->plan_admission(uneven.view(), NewRequest(460).shape));
  EXPECT_EQ(placed(*make_limited(4, 2), uneven.view(), NewRequest(450)), (Amounts{150, 300, 0, 0}));
  // Those with most K/V may have most room: their pools are larger.
  Cluster larger({150, 150, 300, 300});
  larger.loads[2].num_blocks = larger.loads[3].num_blocks = 2000;
  EXPECT_EQ(placed(*make_limited(4, 2), larger.view(), NewRequest(500)), (Amounts{0, 0, 250, 250}));
}

TEST(DcpPolicy, GrowthStaysWithinTheLimit) {
  const auto policy = make_limited(3, 2);
  NewRequest request(100);
  request.placement.append_block({0, 0});
  EXPECT_EQ(policy->plan_growth(Cluster({0, 100, 600}).view(), request.shape), 2);
  request.placement.append_block({1, 0});
  const Cluster full({0, 0, 600});
  EXPECT_EQ(policy->plan_growth(full.view(), request.shape), std::nullopt);
  EXPECT_TRUE(policy->permits_growth(full.view(), request.shape, 0));
  EXPECT_FALSE(policy->permits_growth(full.view(), request.shape, 2));
  // One that comes back waits for its holders.
  request.shape.num_new_blocks = 50;
  EXPECT_FALSE(policy->plan_admission(Cluster({20, 20, 600}).view(), request.shape).has_value());
  EXPECT_TRUE(policy->plan_admission(Cluster({20, 40, 600}).view(), request.shape).has_value());
}

// A request that was taken must not begin where it cannot end.
TEST(DcpPolicy, HoldersAreLargeEnoughForTheLimit) {
  Cluster cluster({100, 10, 60, 60});
  for (InstanceLoad& load : cluster.loads) load.num_blocks = load.num_free_blocks;
  const auto policy = make_limited(4, 2);
  const NewRequest any(1);
  EXPECT_EQ(policy->max_request_blocks(Amounts{100, 10, 60, 60}, any.shape), 120);
  EXPECT_EQ(policy->max_request_blocks(Amounts{100, 10, 20, 20}, any.shape), 100);
  EXPECT_EQ(make_limited(4, 4)->max_request_blocks(Amounts{100, 10, 60, 60}, any.shape), 230);
  NewRequest request(5);
  request.shape.max_blocks = 120;
  cluster.loads[0].num_sequences = cluster.loads[2].num_sequences = 9;
  EXPECT_EQ(placed(*policy, cluster.view(), request), (Amounts{0, 0, 0, 5}));
  EXPECT_FALSE(policy->permits_growth(cluster.view(), request.shape, 1));
  EXPECT_TRUE(policy->permits_growth(cluster.view(), request.shape, 2));
}

TEST(DcpPolicy, GrowthLeavesAFullOrTallTail) {
  const auto policy = make_dcp();
  NewRequest request(100);
  request.placement.append_block({1, 0});
  request.placement.append_block({0, 0});
  EXPECT_EQ(policy->plan_growth(Cluster({500, 500, 500}).view(), request.shape), 0);
  EXPECT_EQ(policy->plan_growth(Cluster({100, 500, 600}).view(), request.shape), 1);
  // A new holder only when no other has a free block.
  EXPECT_EQ(policy->plan_growth(Cluster({100, 100, 600}).view(), request.shape), 0);
  EXPECT_EQ(policy->plan_growth(Cluster({0, 100, 600}).view(), request.shape), 1);
  EXPECT_EQ(policy->plan_growth(Cluster({0, 0, 600}).view(), request.shape), 2);
  NewRequest brief(3);
  brief.placement.append_block({0, 0});
  EXPECT_EQ(policy->plan_growth(Cluster({100, 500, 600}).view(), brief.shape), 0);
}

TEST(DcpPolicy, SplitRequestsMoveTheirBindingToTheEmptierHolder) {
  const auto policy = make_dcp();
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

// Where queries are dear, two split requests are not bound to one instance.
TEST(DcpPolicy, BindingsOfSplitRequestsSpreadTheirQueries) {
  PlacementCosts costs = kCheapSplits;
  costs.near_query = 400.0;
  const auto policy = make_dcp(costs);
  Cluster cluster({500, 500});
  kvcache::KvPlacement split(16);
  split.append_block({0, 0});
  split.append_block({1, 0});
  for (InstanceLoad& load : cluster.loads) load.num_sequences = 4;
  for (int i = 0; i < 2; ++i) add_rows(0, 1, +1, cluster);
  EXPECT_EQ(policy->plan_binding(cluster.view(), {&split, 0, 1}), 1);
  add_rows(0, 1, -1, cluster);
  add_rows(1, 0, +1, cluster);
  EXPECT_EQ(policy->plan_binding(cluster.view(), {&split, 0, 1}), 0);
}

// What `with` says of added work is what a view that has it says.
TEST(PlacementScore, AddedWorkCountsAsWorkThatIsThere) {
  Cluster cluster({900, 700, 950});
  cluster.loads[1].num_sequences = 3;
  add_rows(1, 0, +1, cluster);
  RouteCount sent;
  sent.near_queries = 1;
  RouteCount received;
  received.near_partials = 1;
  const std::vector<AddedWork> added = {{0, 320, 0, received}, {2, 160, 1, sent}};
  const PlacementCosts costs;
  const double foreseen = PlacementScore(cluster.view(), costs).with(added);
  cluster.loads[0].num_free_blocks -= 20;
  cluster.loads[2].num_free_blocks -= 10;
  ++cluster.loads[2].num_sequences;
  add_rows(2, 0, +1, cluster);
  EXPECT_NEAR(PlacementScore(cluster.view(), costs).with({}), foreseen, 1e-6 * foreseen);
}

}  // namespace
}  // namespace nanocp::scheduler
