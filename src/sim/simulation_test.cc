// The production engine under the simulator: what a load costs, that nothing is lost, and that
// the same seed gives the same run.
#include "sim/simulation.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace nanocp::sim {
namespace {

SimulationOptions make_options(int num_instances, int64_t num_blocks = 400) {
  SimulationOptions options;
  options.scheduler.num_blocks.assign(static_cast<size_t>(num_instances), num_blocks);
  options.scheduler.max_batched_tokens = 64;
  options.scheduler.max_num_seqs = 32;
  options.cost.shape = {.num_layers = 4,
                        .num_moe_layers = 4,
                        .num_experts = 16,
                        .experts_per_token = 2,
                        .num_instances = num_instances,
                        .num_instances_per_domain = num_instances,
                        .query_bytes = 4096,
                        .partial_bytes = 4096};
  options.cost.constants.attention_fixed_us = 5.0;
  options.cost.constants.attention_us_per_kv_token = 0.05;
  options.cost.constants.dense_fixed_us = 50.0;
  options.cost.constants.route_fixed_us = 5.0;
  options.cost.constants.exchange_fixed_us = 10.0;
  options.cost.constants.step_fixed_us = 100.0;
  return options;
}

std::unique_ptr<scheduler::Policy> policy(const std::string& name, int num_instances) {
  auto made = scheduler::make_policy(name, {.num_instances = num_instances,
                                            .degree = num_instances,
                                            .threshold_tokens = 500,
                                            .min_tokens_per_shard = 64});
  EXPECT_TRUE(made.ok());
  return std::move(*made);
}

SimulationResult run(const SimulationOptions& options, const std::string& name,
                     const std::vector<Arrival>& arrivals) {
  auto result = simulate(options, policy(name, options.scheduler.num_instances()), arrivals);
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? std::move(*result) : SimulationResult{};
}

std::vector<Arrival> mixed_load(double rate, uint64_t seed) {
  const auto mixture = LengthMixture::parse(
      "90% uniform(1,100) -> uniform(1,40) ; 10% uniform(500,3000) -> uniform(1,60)");
  return draw_load(*mixture, {.rate_per_s = rate, .duration_s = 20.0}, Random(seed));
}

TEST(Simulation, OneRequestTakesWhatTheCostModelSays) {
  SimulationOptions options = make_options(1);
  options.cost.constants.attention_us_per_kv_token = 0.0;
  const auto result =
      run(options, "bound", {{.time_us = 1000, .num_prompt_tokens = 100, .num_output_tokens = 10}});
  // Per step: 4 x (dense 50 + attention 5), 4 x exchange 10, 100.
  const double step_us = 4 * 55.0 + 4 * 10.0 + 100.0;
  ASSERT_EQ(result.records.size(), 1U);
  EXPECT_EQ(result.num_steps, 10U);
  EXPECT_EQ(result.num_tokens, 10);
  EXPECT_DOUBLE_EQ(result.metrics.all.tpot_us.mean, step_us);
  EXPECT_EQ(result.records[0].start_us, 1000);
  EXPECT_EQ(result.records[0].degree, 1);
}

TEST(Simulation, PrefillHereTakesItsSteps) {
  SimulationOptions options = make_options(1);
  options.prefill_elsewhere = false;
  const auto result =
      run(options, "bound", {{.time_us = 0, .num_prompt_tokens = 100, .num_output_tokens = 3}});
  // 100 rows in steps of 64, the second of which samples, and two more tokens.
  EXPECT_EQ(result.num_steps, 4U);
}

TEST(Simulation, EveryPolicyServesEveryRequest) {
  const auto num_seeds = static_cast<uint64_t>(std::ceil(5 * NANOCP_TEST_SCALE));
  for (const char* name : {"bound", "uniform_cp", "threshold_cp", "dcp"}) {
    for (uint64_t seed = 1; seed <= num_seeds; ++seed) {
      const auto arrivals = mixed_load(30.0, seed);
      const auto result = run(make_options(3), name, arrivals);
      ASSERT_EQ(result.records.size(), arrivals.size()) << name;
      for (const RequestRecord& record : result.records) {
        ASSERT_TRUE(record.is_finished()) << name << " seed " << seed;
        EXPECT_EQ(record.num_tokens, record.arrival.num_output_tokens);
        EXPECT_GE(record.start_us, record.arrival.time_us);
        EXPECT_GE(record.degree, 1);
        EXPECT_LE(record.degree, 3);
      }
      EXPECT_GE(result.straggler_ratio, 1.0);
    }
  }
}

TEST(Simulation, TheSameSeedGivesTheSameRun) {
  const auto arrivals = mixed_load(40.0, 3);
  const auto a = run(make_options(4), "dcp", arrivals);
  const auto b = run(make_options(4), "dcp", arrivals);
  EXPECT_EQ(a.trace_hash, b.trace_hash);
  EXPECT_EQ(a.end_us, b.end_us);
  const auto other = run(make_options(4), "dcp", mixed_load(40.0, 4));
  EXPECT_NE(a.trace_hash, other.trace_hash);
}

TEST(Simulation, WhatCannotFitIsRefusedAndCounts) {
  const std::vector<Arrival> arrivals = {
      {.time_us = 0, .num_prompt_tokens = 100'000, .num_output_tokens = 5},
      {.time_us = 0, .num_prompt_tokens = 10, .num_output_tokens = 5}};
  const auto result = run(make_options(2), "bound", arrivals);
  EXPECT_EQ(result.metrics.all.num_refused, 1);
  EXPECT_EQ(result.metrics.all.num_tpot_misses, 1);
  EXPECT_TRUE(result.records[1].is_finished());
  EXPECT_FALSE(result.metrics.meets({}));
  EXPECT_EQ(result.missed, kRefusedName);
}

TEST(Simulation, WhoGivesUpIsTakenOutAndNotMeasured) {
  SimulationOptions options = make_options(1, 10);
  options.checks_steps = true;
  // The first fills the pool for long; the second waits for it, and gives up in the queue.
  const std::vector<Arrival> arrivals = {
      {.num_prompt_tokens = 60, .num_output_tokens = 100, .cancel_after_us = 20'000},
      {.time_us = 10, .num_prompt_tokens = 150, .num_output_tokens = 5, .cancel_after_us = 500},
      {.time_us = 20, .num_prompt_tokens = 150, .num_output_tokens = 5}};
  const auto result = run(options, "bound", arrivals);
  EXPECT_TRUE(result.records[0].is_cancelled);
  EXPECT_GT(result.records[0].num_tokens, 10);
  EXPECT_TRUE(result.records[1].is_cancelled);
  EXPECT_EQ(result.records[1].num_tokens, 0);
  EXPECT_TRUE(result.records[2].is_finished());
  EXPECT_GE(result.records[2].start_us, 20'000);
  EXPECT_EQ(result.metrics.num_cancelled, 2);
  EXPECT_EQ(result.metrics.all.num_requests, 1);
}

TEST(Simulation, MoreImportantRequestsRunFirst) {
  SimulationOptions options = make_options(1, 10);
  options.checks_steps = true;
  const std::vector<Arrival> arrivals = {
      {.num_prompt_tokens = 150, .num_output_tokens = 5, .priority = 1},
      {.time_us = 1, .num_prompt_tokens = 150, .num_output_tokens = 5, .priority = 1},
      {.time_us = 2, .num_prompt_tokens = 150, .num_output_tokens = 5, .priority = -1}};
  const auto result = run(options, "bound", arrivals);
  EXPECT_LT(result.records[2].start_us, result.records[1].start_us);
}

TEST(Simulation, PlanningAheadServesTheSameTokens) {
  SimulationOptions options = make_options(4);
  options.checks_steps = true;
  const auto arrivals = mixed_load(20.0, 5);
  const auto at_once = run(options, "dcp", arrivals);
  options.plans_ahead = true;
  const auto ahead = run(options, "dcp", arrivals);
  EXPECT_EQ(ahead.num_tokens, at_once.num_tokens);
  // Arrivals are seen a step later; nothing else changes.
  EXPECT_NEAR(ahead.mean_step_us, at_once.mean_step_us, 0.05 * at_once.mean_step_us);
}

TEST(Simulation, StopsOnceTheObjectivesAreMissed) {
  SimulationOptions options = make_options(1, 100);
  options.objectives.queue_us = 1e6;
  options.stop_at_miss = true;
  const auto arrivals = mixed_load(400.0, 1);
  const auto result = run(options, "bound", arrivals);
  EXPECT_TRUE(result.is_stopped);
  EXPECT_FALSE(result.missed.empty());
  EXPECT_EQ(result.records.size(), arrivals.size());
  EXPECT_LT(result.end_us, 20'000'000);
}

TEST(Simulation, RefusesAModelOfOtherSize) {
  SimulationOptions options = make_options(2);
  options.cost.shape.num_instances = 3;
  EXPECT_FALSE(simulate(options, policy("dcp", 2), {}).ok());
}

TEST(Metrics, PercentilesAndObjectivesCountByClass) {
  EXPECT_EQ(percentiles({}).p99, 0.0);
  std::vector<double> values;
  for (int i = 100; i >= 1; --i) values.push_back(i);
  EXPECT_EQ(percentiles(values).p50, 50.0);
  EXPECT_EQ(percentiles(values).p99, 99.0);
  EXPECT_EQ(length_class(7'999), 0);
  EXPECT_EQ(length_class(64'000), 1);
  EXPECT_EQ(length_class(64'001), 2);

  // 200 short requests keep the objective, the only long one does not: all of its class miss.
  std::vector<RequestRecord> records(201);
  for (RequestRecord& record : records) {
    record.arrival = {.time_us = 0, .num_prompt_tokens = 100, .num_output_tokens = 10};
    record.start_us = 0;
    record.num_tokens = 10;
    record.finish_us = 100'000;
    record.degree = 1;
  }
  records.back().arrival.num_prompt_tokens = 100'000;
  const Objectives objectives;
  EXPECT_TRUE(compute_metrics(records, objectives).meets(objectives));
  records.back().finish_us = 1'000'000;
  const Metrics metrics = compute_metrics(records, objectives);
  EXPECT_EQ(metrics.all.num_tpot_misses, 1);
  EXPECT_FALSE(metrics.meets(objectives));
  EXPECT_NEAR(metrics.attainment(), 200.0 / 201.0, 1e-12);
  EXPECT_EQ(metrics.missed(objectives), "TPOT of prompts above 64k");
  records.back().finish_us = -1;
  EXPECT_EQ(compute_metrics(records, objectives).missed(objectives), kUnfinishedName);
}

}  // namespace
}  // namespace nanocp::sim
