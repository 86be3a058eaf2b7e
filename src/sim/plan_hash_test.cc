// The same seed plans the same steps on every machine: hashes on record. A change of the scheduler
// or of a policy that plans otherwise, and is meant to, puts the hashes that it gets here.
#include "sim/plan_hash.h"

#include <gtest/gtest.h>

#include <iterator>
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
  bool reserves_growth = false;
};

uint64_t hash_of(const Recorded& recorded) {
  SimulationOptions options = make_options(recorded.prefill_elsewhere);
  options.scheduler.reserves_growth = recorded.reserves_growth;
  auto policy = scheduler::make_policy(recorded.policy, {.num_instances = 8,
                                                         .router = recorded.router,
                                                         .degree = 4,
                                                         .threshold_tokens = 400,
                                                         .min_tokens_per_shard = 128,
                                                         .costs = options.cost.placement_costs()});
  EXPECT_TRUE(policy.ok());
  const auto result = simulate(options, std::move(*policy), make_load(recorded.load));
  EXPECT_TRUE(result.ok()) << result.error().message;
  return result.ok() ? result->trace_hash : 0;
}

TEST(PlanHash, PlansAreThoseOnRecord) {
  const Recorded kRecorded[] = {
      {"bound", "round_robin", "bursts", true, 0x6118f77b8fe7610a},
      {"bound", "least_requests", "poisson", true, 0x6d259f61ee0edfc7},
      {"bound", "least_kv", "growth", false, 0xda237e4838a93371},
      {"bound", "power_of_two", "poisson", false, 0x302cb198d41789c2},
      {"bound", "any_instance", "cancel_storm", true, 0x6b425b486fbc9953},
      {"uniform_cp", "least_kv", "mixed", false, 0xe995a5e7d8ee5716},
      {"uniform_cp", "least_kv", "poisson", true, 0x45907628c395795f},
      {"threshold_cp", "least_kv", "stream", true, 0x23899259f949f918},
      {"threshold_cp", "least_kv", "poisson", false, 0x3a2736c4664fd312},
      {"dcp", "least_kv", "limits", false, 0x3624f48df221c39e},
      {"dcp", "least_kv", "priorities", true, 0xef35495acffadd34},
      {"dcp", "least_kv", "poisson", true, 0xba63d472a4efb08e},
      {"bound", "least_kv", "poisson", true, 0xee7a61922afe10b, true},
      {"bound", "any_instance", "growth", false, 0x128491c8edf36d9, true},
      {"uniform_cp", "least_kv", "mixed", false, 0x24332c45851d07a3, true},
      {"dcp", "least_kv", "growth", true, 0x2ad797a4cbe31a65, true},
      {"dcp", "least_kv", "poisson", true, 0x898be8954f60c1f9, true},
  };
  // Where everything takes longer, some of each kind.
  const size_t step = NANOCP_TEST_SCALE >= 1.0 ? 1 : 4;
  for (size_t i = 0; i < std::size(kRecorded); i += step) {
    const Recorded& recorded = kRecorded[i];
    const uint64_t hash = hash_of(recorded);
    EXPECT_EQ(hash, recorded.hash) << recorded.policy << " " << recorded.router << ", "
                                   << recorded.load << std::hex << " 0x" << hash;
  }
}

TEST(PlanHash, TablesDoNotMatter) {
  for (const char* name : {"uniform_cp", "dcp"}) {
    SimulationOptions options = make_options(true);
    uint64_t hashes[2] = {};
    for (const bool checks_steps : {false, true}) {
      options.checks_steps = checks_steps;
      auto policy = scheduler::make_policy(name, {.num_instances = 8, .degree = 4});
      const auto result = simulate(options, std::move(*policy), make_load("mixed"));
      ASSERT_TRUE(result.ok()) << result.error().message;
      hashes[checks_steps ? 1 : 0] = result->trace_hash;
    }
    EXPECT_EQ(hashes[0], hashes[1]) << name;
  }
}

TEST(PlanHash, TellsPlansApart) {
  request::Sequence sequences[2];
  const auto hash_of_two = [&](size_t first, size_t second, int64_t num_kv_tokens) {
    scheduler::StepPlan plan;
    plan.step_id = 1;
    plan.num_rows = 2;
    plan.samples = {{&sequences[first], first + 1}, {&sequences[second], second + 1}};
    plan.work.resize(2);
    plan.work[first].num_kv_tokens = num_kv_tokens;
    PlanHash hash;
    hash.add(plan);
    return hash.value();
  };
  EXPECT_EQ(hash_of_two(0, 1, 5), hash_of_two(0, 1, 5));
  EXPECT_NE(hash_of_two(0, 1, 5), hash_of_two(1, 0, 5));
  EXPECT_NE(hash_of_two(0, 1, 5), hash_of_two(0, 1, 6));
  PlanHash hash;
  hash.add(1, {.binding = 0, .kv_tokens = {{0, 3}, {1, 4}}, .num_preemptions = 0});
  PlanHash other;
  other.add(1, {.binding = 0, .kv_tokens = {{1, 3}, {0, 4}}, .num_preemptions = 0});
  EXPECT_NE(hash.value(), other.value());
}

}  // namespace
}  // namespace nanocp::sim
