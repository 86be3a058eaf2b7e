// Which rates a search tries, and that it finds the largest one that will do.
#include "sim/rate_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace nanocp::sim {
namespace {

// Searches for `limit`; the number of rates that were tried.
int search(RateSearch& search, double limit) {
  int num_tried = 0;
  while (const auto place = search.next()) {
    search.record(*place, search.rate_per_s(*place) <= limit);
    if (++num_tried > 100) break;
  }
  return num_tried;
}

TEST(RateSearch, FindsTheLargestRateFromAnyGuess) {
  for (const double guess : {0.01, 1.0, 17.0, 30.0, 29.9, 1e5}) {
    RateSearch one(guess, 0.015, 0.25);
    EXPECT_LE(search(one, 30.0), 20) << guess;
    ASSERT_TRUE(one.met().has_value());
    EXPECT_LE(one.rate_per_s(*one.met()), 30.0);
    EXPECT_GT(one.rate_per_s(*one.met()) * 1.016, 30.0);
    EXPECT_EQ(*one.missed(), *one.met() + 1);
  }
}

TEST(RateSearch, AGoodGuessSavesTrials) {
  RateSearch near(29.9, 0.015, 0.03);
  EXPECT_LE(search(near, 30.0), 4);
  RateSearch far(29.9, 0.015, 0.5);
  EXPECT_GT(search(far, 30.0), 4);
}

TEST(RateSearch, SaysThatNoRateWillDo) {
  RateSearch one(5.0, 0.015, 0.25);
  EXPECT_LE(search(one, 0.0), 12);
  EXPECT_FALSE(one.met().has_value());
  RateSearch given_up(5.0, 0.015, 0.25);
  given_up.record(*given_up.next(), false);
  given_up.give_up();
  EXPECT_FALSE(given_up.next().has_value());
}

// Trying several rates at once must not change the path: the answers are used in the same order.
TEST(RateSearch, WhatMayComeHoldsWhatComes) {
  for (const double limit : {3.0, 19.0, 21.0, 400.0}) {
    RateSearch one(20.0, 0.015, 0.25);
    while (const auto place = one.next()) {
      const auto upcoming = one.upcoming(7);
      EXPECT_EQ(upcoming.front(), *place);
      EXPECT_EQ(std::set<int32_t>(upcoming.begin(), upcoming.end()).size(), upcoming.size());
      one.record(*place, one.rate_per_s(*place) <= limit);
      const auto after = one.next();
      if (after) {
        EXPECT_NE(std::find(upcoming.begin(), upcoming.end(), *after), upcoming.end());
      }
    }
  }
}

TEST(RateSearch, RatesHaveFourDigits) {
  const RateSearch one(20.0, 0.015, 0.25);
  EXPECT_DOUBLE_EQ(one.rate_per_s(0), 1.0);
  EXPECT_DOUBLE_EQ(one.rate_per_s(300), 87.06);
}

scheduler::CostModel cost_of(double us_per_token) {
  scheduler::CostModel cost;
  cost.shape = {
      .num_layers = 1, .num_moe_layers = 1, .num_instances = 2, .num_instances_per_domain = 2};
  cost.constants.step_fixed_us = 1000.0;
  cost.constants.attention_us_per_kv_token = us_per_token;
  return cost;
}

TEST(EstimateRate, EachLimitBinds) {
  const scheduler::CostModel cheap = cost_of(0.0);
  RateEstimateInput input{.cost = cheap,
                          .kv_tokens_per_instance = 100'000,
                          .max_num_seqs = 10,
                          .mean_prompt_tokens = 900.0,
                          .mean_output_tokens = 100.0,
                          .objectives = {}};
  // 2 x 10 rows of 100 steps of 1 ms each.
  EXPECT_NEAR(estimate_rate(input), 200.0, 1.0);
  input.max_num_seqs = 1000;  // memory: 100 requests each
  EXPECT_NEAR(estimate_rate(input), 2000.0, 10.0);
  const scheduler::CostModel dear = cost_of(1.0);
  const RateEstimateInput slow{.cost = dear,
                               .kv_tokens_per_instance = 100'000,
                               .max_num_seqs = 1000,
                               .mean_prompt_tokens = 900.0,
                               .mean_output_tokens = 100.0,
                               .objectives = {}};
  // 49,000 tokens, 51.6 requests each, in steps of 50 ms.
  EXPECT_NEAR(estimate_rate(slow), 2 * 51.6 / 5.0, 0.3);
}

}  // namespace
}  // namespace nanocp::sim
