// A thousand seeds of loads that are hard on a scheduler, under every policy. The simulation checks
// what the scheduler promises in every step; here the outcome of each request is checked.
#include "sim/adversary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>

#include "sim/simulation.h"

namespace nanocp::sim {
namespace {

constexpr int64_t kStepUs = 1000;  // about what a step takes

struct Tested {
  std::string policy;
  std::string router = "least_kv";
  bool has_max_degree = false;
};

// A small cluster with odd limits, and one of the loads for it.
struct Case {
  SimulationOptions options;
  scheduler::PolicyOptions policy;
  AdversaryName adversary;
  std::vector<int64_t> kv_tokens;
  std::vector<Arrival> arrivals;
};

scheduler::SchedulerOptions draw_scheduler(Random& random) {
  scheduler::SchedulerOptions options;
  const int64_t num_instances = random.between(1, 16);
  options.block_size = static_cast<int32_t>(random.between(1, 5));
  const bool are_equal = random.below(2) == 0;
  for (int64_t i = 0; i < num_instances; ++i) {
    options.num_blocks.push_back(are_equal && i > 0 ? options.num_blocks[0]
                                                    : random.between(2, 16));
  }
  options.max_num_seqs = static_cast<int32_t>(random.between(1, 6));
  options.max_batched_tokens = options.max_num_seqs + static_cast<int32_t>(random.between(0, 20));
  options.prefill_chunk_tokens = static_cast<int32_t>(random.between(0, 12));
  options.admission_lookahead = static_cast<int32_t>(random.between(0, 4));
  options.max_overtakes = static_cast<int32_t>(random.between(0, 6));
  options.num_instances_per_domain = static_cast<int32_t>(random.between(0, 8));
  options.watermark = random.below(2) == 0 ? 0.0 : 0.1;
  options.reserves_growth = random.below(4) == 0;  // few are preempted with it
  return options;
}

scheduler::PlacementCosts draw_costs(Random& random) {
  const auto up_to = [&random](int64_t most) {
    return static_cast<double>(random.between(0, most));
  };
  scheduler::PlacementCosts costs;
  for (double* cost :
       {&costs.row, &costs.row_of_fullest, &costs.near_split, &costs.near_query,
        &costs.near_partial, &costs.far_split, &costs.far_query, &costs.far_partial}) {
    *cost = up_to(20);
  }
  return costs;
}

Case draw_case(const Tested& tested, uint64_t seed) {
  Random random(seed);
  Case drawn;
  scheduler::SchedulerOptions& scheduler = drawn.options.scheduler;
  scheduler = draw_scheduler(random);
  const int32_t num_instances = scheduler.num_instances();
  drawn.options.seed = seed;
  drawn.options.drain_s = 1e6;
  drawn.options.checks_steps = true;
  drawn.options.prefill_elsewhere = random.below(3) == 0;
  drawn.options.plans_ahead = random.below(2) == 0;
  drawn.options.cost.shape.num_instances = num_instances;
  drawn.options.cost.shape.num_instances_per_domain = scheduler.num_instances_per_domain;
  drawn.options.cost.constants.step_fixed_us = kStepUs;
  drawn.options.cost.constants.dense_us_per_row = 20.0;

  drawn.policy = {.num_instances = num_instances,
                  .router = tested.router,
                  .degree = static_cast<int32_t>(random.between(1, num_instances)),
                  .threshold_tokens = random.between(0, 40),
                  .min_tokens_per_shard = random.between(1, 30),
                  .costs = draw_costs(random)};
  if (tested.policy == "uniform_cp") drawn.policy.threshold_tokens = 0;
  if (tested.has_max_degree) {
    drawn.policy.max_degree = static_cast<int32_t>(random.between(1, num_instances));
  }

  for (const int64_t num_blocks : scheduler.num_blocks) {
    drawn.kv_tokens.push_back(num_blocks * scheduler.block_size);
  }
  drawn.adversary = kAdversaries[seed % kAdversaries.size()];
  const AdversaryTarget target = {.kv_tokens = drawn.kv_tokens,
                                  .num_requests = random.between(10, 100),
                                  .duration_us = kStepUs * random.between(1, 300)};
  drawn.arrivals = draw_adversarial_load(drawn.adversary.kind, target, random);
  return drawn;
}

// What all instances together hold, and what one does, in tokens of the request's KV.
bool must_be_refused(const Case& drawn, const Arrival& arrival) {
  const int64_t num_tokens = arrival.num_prompt_tokens + arrival.num_output_tokens - 1;
  int64_t all = 0;
  for (const int64_t tokens : drawn.kv_tokens) all += tokens;
  return arrival.num_output_tokens < 1 || num_tokens > all;
}

bool must_be_taken(const Case& drawn, const Arrival& arrival) {
  const int64_t num_tokens = arrival.num_prompt_tokens + arrival.num_output_tokens - 1;
  const int64_t smallest = *std::min_element(drawn.kv_tokens.begin(), drawn.kv_tokens.end());
  return arrival.num_output_tokens >= 1 && num_tokens <= smallest;
}

void check_record(const Case& drawn, const RequestRecord& record) {
  const Arrival& arrival = record.arrival;
  if (must_be_refused(drawn, arrival)) {
    EXPECT_TRUE(record.is_refused);
  }
  if (must_be_taken(drawn, arrival)) {
    EXPECT_FALSE(record.is_refused);
  }
  if (record.is_refused) {
    EXPECT_EQ(record.num_tokens, 0);
  } else if (!record.is_cancelled) {
    EXPECT_TRUE(record.is_finished());
    EXPECT_EQ(record.num_tokens, arrival.num_output_tokens);
    EXPECT_LE(arrival.time_us, record.start_us);
  } else {
    EXPECT_GE(arrival.cancel_after_us, 0);
    EXPECT_FALSE(record.is_finished());
  }
}

// One line, with what was asked for and what to do.
void check_refusal(const Case& drawn, const Refusal& refusal) {
  const Arrival& arrival = drawn.arrivals[refusal.record];
  const std::string& reason = refusal.reason;
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  const std::string wanted = "max_tokens " + std::to_string(arrival.num_output_tokens);
  const bool is_named = reason.find(wanted) != std::string::npos ||
                        reason.find("max_tokens is 0, it must be at least 1") != std::string::npos;
  EXPECT_TRUE(is_named) << reason;
}

class Adversary : public testing::TestWithParam<Tested> {};

struct Totals {
  int64_t num_finished = 0;
  int64_t num_refused = 0;
  int64_t num_cancelled = 0;
  int64_t num_preemptions = 0;
  int64_t num_split = 0;
  uint64_t num_steps = 0;
};

void run_case(const Tested& tested, uint64_t seed, Totals& totals) {
  const Case drawn = draw_case(tested, seed);
  SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::string(drawn.adversary.name));
  auto policy = scheduler::make_policy(tested.policy, drawn.policy);
  ASSERT_TRUE(policy.ok()) << policy.error().message;
  const auto result = simulate(drawn.options, std::move(*policy), drawn.arrivals);
  ASSERT_TRUE(result.ok()) << result.error().message;
  ASSERT_EQ(result->records.size(), drawn.arrivals.size());
  for (const RequestRecord& record : result->records) {
    check_record(drawn, record);
    totals.num_finished += record.is_finished() ? 1 : 0;
    totals.num_refused += record.is_refused ? 1 : 0;
    totals.num_cancelled += record.is_cancelled ? 1 : 0;
    totals.num_preemptions += record.num_preemptions;
    totals.num_split += record.degree > 1 ? 1 : 0;
    if (tested.has_max_degree) {
      EXPECT_LE(record.degree, drawn.policy.max_degree);
    }
  }
  for (const Refusal& refusal : result->refusals) check_refusal(drawn, refusal);
  totals.num_steps += result->num_steps;

  // Checks bring counters up to date that lag behind otherwise, and need the plans' tables.
  SimulationOptions unchecked = drawn.options;
  unchecked.checks_steps = false;
  auto same_policy = scheduler::make_policy(tested.policy, drawn.policy);
  const auto again = simulate(unchecked, std::move(*same_policy), drawn.arrivals);
  ASSERT_TRUE(again.ok()) << again.error().message;
  EXPECT_EQ(again->trace_hash, result->trace_hash);
  EXPECT_EQ(again->end_us, result->end_us);
}

TEST_P(Adversary, BreaksNoPromise) {
  const auto num_seeds = static_cast<int64_t>(std::ceil(1000 * NANOCP_TEST_SCALE));
  Totals totals;
  for (int64_t seed = getenv("SEED") ? atoi(getenv("SEED")) : 1; seed <= num_seeds; ++seed) {
    run_case(GetParam(), static_cast<uint64_t>(seed), totals);
    ASSERT_FALSE(HasFailure());
  }
  // Otherwise this proves little.
  EXPECT_LT(10 * num_seeds, totals.num_finished);
  EXPECT_LT(num_seeds, totals.num_refused);
  EXPECT_LT(num_seeds, totals.num_cancelled);
  EXPECT_LT(num_seeds, totals.num_preemptions);
  if (GetParam().policy != "bound") {
    EXPECT_LT(num_seeds, totals.num_split);
  }
  RecordProperty("finished", static_cast<int>(totals.num_finished));
  RecordProperty("preemptions", static_cast<int>(totals.num_preemptions));
  RecordProperty("steps", static_cast<int>(totals.num_steps));
}

INSTANTIATE_TEST_SUITE_P(
    Policies, Adversary,
    testing::Values(Tested{"bound", "round_robin"}, Tested{"bound", "least_requests"},
                    Tested{"bound", "least_kv"}, Tested{"bound", "power_of_two"},
                    Tested{"bound", "any_instance"}, Tested{"uniform_cp"}, Tested{"threshold_cp"},
                    Tested{"dcp"}, Tested{.policy = "dcp", .has_max_degree = true}),
    [](const auto& tested) {
      const bool is_bound = tested.param.policy == "bound";
      const std::string router = is_bound ? "_" + tested.param.router : "";
      return tested.param.policy + router + (tested.param.has_max_degree ? "_max_degree" : "");
    });

TEST(AdversaryLoad, IsSortedAndTheSameForASeed) {
  const std::vector<int64_t> kv_tokens = {100, 40, 60};
  for (const AdversaryName& adversary : kAdversaries) {
    const AdversaryTarget target = {
        .kv_tokens = kv_tokens, .num_requests = 200, .duration_us = 1000};
    const auto kind = parse_adversary(adversary.name);
    ASSERT_TRUE(kind.ok() && *kind == adversary.kind);
    const auto a = draw_adversarial_load(*kind, target, Random(7));
    const auto b = draw_adversarial_load(*kind, target, Random(7));
    ASSERT_EQ(a.size(), 200U);
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].time_us, b[i].time_us);
      EXPECT_EQ(a[i].num_prompt_tokens, b[i].num_prompt_tokens);
      EXPECT_GE(a[i].num_prompt_tokens, 1);
      EXPECT_LT(a[i].time_us, 1000);
      if (i > 0) {
        EXPECT_LE(a[i - 1].time_us, a[i].time_us);
      }
    }
  }
  EXPECT_NE(parse_adversary("gentle").error().message.find("bursts, all_long"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::sim
