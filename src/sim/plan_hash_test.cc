// The same seed plans the same steps on every machine: hashes on record. A change of the scheduler
// or of a policy that plans otherwise, and is meant to, puts the hashes that it gets here.
#include "sim/plan_hash.h"

#include <gtest/gtest.h>

#include <string>

#include "sim/adversary.h"
#include "sim/simulation.h"

namespace nanocp::sim {
namespace {

// Eight instances in two domains, costs as measured on GPUs.
SimulationOptions make_options(bool prefill_elsewhere) {
  SimulationOptions options;
  options.scheduler.num_blocks.assign(8, 60);
  options.scheduler.block_size = 16;
  options.scheduler.max_batched_tokens = 64;
  options.scheduler.max_num_seqs = 16;
  options.scheduler.num_instances_per_domain = 4;
  options.cost.shape = {.num_layers = 48,
                        .num_moe_layers = 48,
                        .num_experts = 128,
                        .experts_per_token = 8,
                        .num_instances = 8,
                        .num_instances_per_domain = 4,
                        .query_bytes = 8192.0,
                        .partial_bytes = 8320.0};
  options.cost.constants = {.attention_fixed_us = 12.3777,
                            .attention_us_per_kv_token = 0.000713779,
                            .attention_us_per_pair = 0.000713779,
                            .dense_fixed_us = 34.6128,
                            .dense_us_per_row = 0.0813903,
                            .route_fixed_us = 7.12885,
                            .route_us_per_byte = 7.32427e-06,
                            .route_far_fixed_us = 20.0,
                            .route_far_us_per_byte = 2e-5,
                            .exchange_fixed_us = 23.7273,
                            .expert_fixed_us = 8.15704,
                            .expert_us_per_touched_expert = 3.09578,
                            .expert_us_per_row = 0.0269035,
                            .step_fixed_us = 249.386,
                            .step_us_per_row = 0.775404};
  options.prefill_elsewhere = prefill_elsewhere;
  options.checks_steps = true;
  return options;
}

std::vector<Arrival> make_load(const std::string& name) {
  if (name == "poisson") {
    const auto mixture = LengthMixture::parse(
        "90% lognormal(40,400) -> uniform(1,200) ; 10% loguniform(500,5k) -> uniform(1,60)");
    return draw_load(*mixture, {.rate_per_s = 60.0, .duration_s = 3.0}, Random(11));
  }
  const std::vector<int64_t> kv_tokens(8, 60 * 16);
  return draw_adversarial_load(
      *parse_adversary(name),
      {.kv_tokens = kv_tokens, .num_requests = 100, .duration_us = 1'000'000}, Random(12));
}

struct Recorded {
  std::string policy;
  std::string router;
  std::string load;
  bool prefill_elsewhere;
  uint64_t hash;
};

uint64_t hash_of(const Recorded& recorded) {
  auto policy = scheduler::make_policy(recorded.policy, {.num_instances = 8,
                                                         .router = recorded.router,
                                                         .degree = 4,
                                                         .threshold_tokens = 400,
                                                         .min_tokens_per_shard = 128,
                                                         .tokens_per_row = 158.7,
                                                         .tokens_per_split = 512});
  EXPECT_TRUE(policy.ok());
  const auto result = simulate(make_options(recorded.prefill_elsewhere), std::move(*policy),
                               make_load(recorded.load));
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? result->trace_hash : 0;
}

TEST(PlanHash, PlansAreThoseOnRecord) {
  const Recorded kRecorded[] = {
      {"bound", "round_robin", "bursts", true, 0x7db6ebe398d7334d},
      {"bound", "least_requests", "poisson", true, 0xb207bc984ca87ee4},
      {"bound", "least_kv", "growth", false, 0xb99089d6197672f7},
      {"bound", "power_of_two", "poisson", false, 0x7610a048365b6ff6},
      {"bound", "any_instance", "cancel_storm", true, 0x7e34544bb3d30f46},
      {"uniform_cp", "least_kv", "mixed", false, 0x1ec2dd858c479ae8},
      {"uniform_cp", "least_kv", "poisson", true, 0x3adcb6111d17fac9},
      {"threshold_cp", "least_kv", "stream", true, 0x21f6179794758636},
      {"threshold_cp", "least_kv", "poisson", false, 0x31362b1dc77db71f},
      {"dcp", "least_kv", "limits", false, 0xf19672380e4bebd6},
      {"dcp", "least_kv", "priorities", true, 0x9c6ae30f89802f33},
      {"dcp", "least_kv", "poisson", true, 0x8c6e5c30f3d0b1f7},
  };
  for (const Recorded& recorded : kRecorded) {
    const uint64_t hash = hash_of(recorded);
    EXPECT_EQ(hash, recorded.hash) << recorded.policy << " " << recorded.router << ", "
                                   << recorded.load << std::hex << " 0x" << hash;
  }
}

TEST(PlanHash, TellsPlansApart) {
  scheduler::StepPlan plan;
  plan.instances.resize(2);
  plan.chunks.push_back(
      {.sequence = 1, .binding = 0, .first_position = 5, .num_tokens = 1, .samples = true});
  const std::vector<BlockId> blocks = {3, 4};
  const std::vector<int32_t> block_idx = {0, 1};
  plan.instances[0].items.push_back({.source = 0,
                                     .row_begin = 0,
                                     .num_rows = 1,
                                     .first_position = 5,
                                     .sequence = 1,
                                     .blocks = blocks,
                                     .block_idx = block_idx});
  const auto hash = [](const scheduler::StepPlan& of) {
    PlanHash result;
    result.add(of);
    return result.value();
  };
  const uint64_t before = hash(plan);
  EXPECT_EQ(hash(plan), before);
  plan.chunks[0].binding = 1;
  EXPECT_NE(hash(plan), before);
  plan.chunks[0].binding = 0;
  std::swap(plan.instances[0].items, plan.instances[1].items);
  EXPECT_NE(hash(plan), before);
  std::swap(plan.instances[0].items, plan.instances[1].items);
  const std::vector<BlockId> others = {3, 5};
  plan.instances[0].items[0].blocks = others;
  EXPECT_NE(hash(plan), before);
}

}  // namespace
}  // namespace nanocp::sim
