// The reserve for growth under whole loads: where memory is tight hardly anybody is preempted,
// where it is not plans are as they would be without it.
#include <gtest/gtest.h>

#include "sim/simulation.h"

namespace nanocp::sim {
namespace {

SimulationOptions make_options(int64_t num_blocks) {
  SimulationOptions options;
  options.scheduler.num_blocks.assign(4, num_blocks);
  options.scheduler.block_size = 16;
  options.cost.shape.num_instances = 4;
  options.cost.shape.num_instances_per_domain = 4;
  options.cost.constants.step_fixed_us = 8000.0;
  options.cost.constants.dense_us_per_row = 10.0;
  options.drain_s = 1e6;
  options.checks_steps = true;
  return options;
}

// Outputs are as long as prompts, so that all together grow to twice of what they begin with.
std::vector<Arrival> make_load(double rate, double duration_s) {
  const auto mixture = LengthMixture::parse("uniform(64,256) -> uniform(64,256)");
  return draw_load(*mixture, {.rate_per_s = rate, .duration_s = duration_s}, Random(1));
}

SimulationResult run(const SimulationOptions& options, const std::vector<Arrival>& arrivals,
                     bool reserves_growth) {
  scheduler::PolicyOptions policy_options{.num_instances = 4, .min_tokens_per_shard = 64};
  policy_options.parts.reserves_growth = reserves_growth;
  auto policy = scheduler::make_policy("dcp", policy_options);
  auto result = simulate(options, std::move(*policy), arrivals);
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? std::move(*result) : SimulationResult{};
}

TEST(GrowthReserve, HardlyAnybodyIsPreemptedInTightMemory) {
  const SimulationOptions options = make_options(256);
  const std::vector<Arrival> arrivals = make_load(1000.0, 0.4);
  const SimulationResult without = run(options, arrivals, false);
  const SimulationResult with = run(options, arrivals, true);
  EXPECT_GT(without.metrics.num_preemptions, 50);
  EXPECT_LE(with.metrics.num_preemptions, 2);
  EXPECT_LT(with.metrics.all.tpot_us.p99, without.metrics.all.tpot_us.p99);
  EXPECT_EQ(with.num_tokens, without.num_tokens);
  EXPECT_LT(static_cast<double>(with.end_us), 1.15 * static_cast<double>(without.end_us));
}

TEST(GrowthReserve, PlansAreTheSameWhereMemoryIsAmple) {
  const SimulationOptions options = make_options(4000);
  const std::vector<Arrival> arrivals = make_load(60.0, 5.0);
  EXPECT_EQ(run(options, arrivals, true).trace_hash, run(options, arrivals, false).trace_hash);
}

// Prompt and output fill everything that there is.
TEST(GrowthReserve, ALoneRequestIsAlwaysAdmitted) {
  const SimulationOptions options = make_options(20);
  const std::vector<Arrival> arrivals(
      3, {.time_us = 0, .num_prompt_tokens = 16 * 70, .num_output_tokens = 161});
  const SimulationResult result = run(options, arrivals, true);
  for (const RequestRecord& record : result.records) EXPECT_TRUE(record.is_finished());
  EXPECT_EQ(result.metrics.num_preemptions, 0);
}

}  // namespace
}  // namespace nanocp::sim
