// What a policy's index answers, against the policy asked anew and against placements that the
// index does not rate.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "scheduler/policies/instance_order.h"
#include "scheduler/policies/placement_score.h"
#include "scheduler/policies/policy_test_bench.h"

namespace nanocp::scheduler {
namespace {

constexpr int32_t kPerDomain = 4;
constexpr PlacementCosts kCosts = {.row = 90.0,
                                   .row_of_fullest = 280.0,
                                   .near_split = 700.0,
                                   .near_query = 30.0,
                                   .near_partial = 50.0,
                                   .far_split = 3000.0,
                                   .far_query = 270.0,
                                   .far_partial = 270.0};

int32_t below(Random& random, int64_t limit) {
  return static_cast<int32_t>(random.between(0, limit - 1));
}

// Few different loads, so that there are ties.
void draw_load(Random& random, InstanceLoad& load) {
  load.num_blocks = 100 * random.between(5, 10);
  load.num_free_blocks = random.between(0, load.num_blocks / 50) * 50;
  load.num_sequences = below(random, 12);
  load.max_sequences = 10;
  load.num_rows = load.num_sequences;
  load.max_rows = 64;
  load.routes = {};
  if (random.between(0, 2) == 0) load.routes = {below(random, 5), 0, below(random, 5), 0};
}

Cluster draw_cluster(Random& random) {
  Cluster cluster(std::vector<int64_t>(static_cast<size_t>(kPerDomain * random.between(1, 9)), 0));
  for (InstanceLoad& load : cluster.loads) draw_load(random, load);
  return cluster;
}

ClusterView view_of(const Cluster& cluster) {
  ClusterView view = cluster.view();
  view.num_instances_per_domain = kPerDomain;
  return view;
}

void expect_same(const std::optional<AdmissionDecision>& a,
                 const std::optional<AdmissionDecision>& b) {
  ASSERT_EQ(a.has_value(), b.has_value());
  if (!a) return;
  EXPECT_EQ(a->binding, b->binding);
  ASSERT_EQ(a->spans.size(), b->spans.size());
  for (size_t i = 0; i < a->spans.size(); ++i) {
    EXPECT_EQ(a->spans[i].holder, b->spans[i].holder);
    EXPECT_EQ(a->spans[i].num_blocks, b->spans[i].num_blocks);
  }
}

std::vector<std::unique_ptr<Policy>> policies_with_an_index() {
  std::vector<std::unique_ptr<Policy>> policies;
  for (const char* router :
       {"round_robin", "least_requests", "least_kv", "power_of_two", "any_instance"}) {
    policies.push_back(make("bound", {.router = router}));
  }
  for (const bool stays : {true, false}) {
    policies.push_back(
        make("dcp",
             {.min_tokens_per_shard = 320, .costs = kCosts, .parts = {.stays_in_domain = stays}}));
    policies.push_back(make("dcp", {.num_instances = kPerDomain,
                                    .min_tokens_per_shard = 320,
                                    .max_degree = 2,
                                    .costs = kCosts,
                                    .parts = {.stays_in_domain = stays}}));
  }
  return policies;
}

TEST(AdmissionIndex, FollowsLoadsToTheLastBit) {
  Random random(5);
  for (const auto& policy : policies_with_an_index()) {
    for (int round = 0; round < 40; ++round) {
      Cluster cluster = draw_cluster(random);
      const auto index = policy->make_admission_index();
      ASSERT_NE(index, nullptr);
      index->rebuild(view_of(cluster));
      for (int change = 0; change < 30; ++change) {
        const InstanceId changed = below(random, std::ssize(cluster.loads));
        draw_load(random, cluster.loads[static_cast<size_t>(changed)]);
        index->update(view_of(cluster), changed);
        ++cluster.num_admissions;
        NewRequest request(random.between(1, 30) * random.between(1, 30));
        if (random.between(0, 4) == 0) request.placement.append_block({changed, 0});
        SCOPED_TRACE(policy->name());
        expect_same(index->plan(view_of(cluster), request.shape),
                    policy->plan_admission(view_of(cluster), request.shape));
      }
    }
  }
}

double score_of(const ClusterView& view, const AdmissionDecision& decision) {
  std::vector<AddedWork> added;
  RouteCount home;
  for (const BlockSpan& span : decision.spans) {
    const bool is_home = span.holder == decision.binding;
    if (!is_home) ++home.near_queries;
    added.push_back({span.holder,
                     span.num_blocks * view.block_size,
                     is_home ? 1 : 0,
                     {.near_partials = is_home ? 0 : 1}});
  }
  for (AddedWork& work : added) {
    if (work.num_rows == 1) work.routes = home;
  }
  return PlacementScore(view, kCosts).with(added);
}

// The best of what is found in one domain, and on one instance, alone.
TEST(AdmissionIndex, DcpMissesNothingBetter) {
  Random random(7);
  const auto policy = make("dcp", {.min_tokens_per_shard = 320, .costs = kCosts});
  int num_split = 0;
  for (int round = 0; round < 400; ++round) {
    Cluster cluster = draw_cluster(random);
    for (InstanceLoad& load : cluster.loads) load.max_sequences = 64;
    const ClusterView view = view_of(cluster);
    const NewRequest request(random.between(1, 30) * random.between(1, 30));
    const auto chosen = policy->plan_admission(view, request.shape);
    const auto expect_no_worse = [&](InstanceId first, InstanceId count) {
      Cluster part = cluster;  // where the others have no room, but the same K/V
      for (InstanceId i = 0; i < view.num_instances(); ++i) {
        InstanceLoad& load = part.loads[static_cast<size_t>(i)];
        if (i >= first && i < first + count) continue;
        load.num_blocks -= load.num_free_blocks;
        load.num_free_blocks = 0;
      }
      const auto other = policy->plan_admission(view_of(part), request.shape);
      if (!other) return;
      ASSERT_TRUE(chosen.has_value());
      EXPECT_LE(score_of(view, *chosen), score_of(view, *other) * (1.0 + 1e-12));
    };
    for (InstanceId i = 0; i < view.num_instances(); ++i) expect_no_worse(i, 1);
    for (InstanceId i = 0; i < view.num_instances(); i += kPerDomain)
      expect_no_worse(i, kPerDomain);
    num_split += chosen && chosen->spans.size() > 1 ? 1 : 0;
  }
  EXPECT_GT(num_split, 50);
}

TEST(InstanceOrder, IsThatOfASort) {
  Random random(9);
  std::vector<double> keys(40, 3.0);
  std::vector<InstanceLoad> loads(40);
  const ClusterView view = {.instances = loads, .block_size = 16, .num_admissions = 0};
  InstanceOrder order;
  order.rebuild(view, [&](InstanceId i) { return keys[static_cast<size_t>(i)]; });
  for (int change = 0; change < 500; ++change) {
    const InstanceId changed = below(random, 40);
    const auto key = static_cast<double>(random.between(0, 9));
    keys[static_cast<size_t>(changed)] = key;
    loads[static_cast<size_t>(changed)].num_sequences = static_cast<int32_t>(random.below(5));
    order.update(view, changed, key);
    for (size_t i = 1; i < keys.size(); ++i) {
      const InstanceOrder::Place& place = order.places()[i];
      ASSERT_TRUE(order.places()[i - 1] < place);
      ASSERT_EQ(place.key, keys[static_cast<size_t>(place.instance)]);
      ASSERT_EQ(place.num_sequences, view.at(place.instance).num_sequences);
    }
  }
}

}  // namespace
}  // namespace nanocp::scheduler
