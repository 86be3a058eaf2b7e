// The phase times of the CPU runner: complete, in order, and only when asked for.
#include <gtest/gtest.h>

#include <array>

#include "base/clock.h"
#include "engine/engine.h"
#include "model/config_parser.h"
#include "model/weight_loader.h"
#include "runner/cpu_runner.h"
#include "scheduler/policy.h"

namespace nanocp::runner {
namespace {

using engine::Phase;
using engine::PhaseSpan;

// The spans of a step of two requests on two instances, every request over both.
std::vector<std::vector<PhaseSpan>> run_steps(bool profile, int* num_layers) {
  Result<model::ModelSpec> config = model::read_config("tests/fixtures/qwen3_moe/config.json");
  EXPECT_TRUE(config.ok());
  const auto spec = std::make_shared<const model::ModelSpec>(std::move(config.value()));
  *num_layers = spec->num_layers;
  model::LoadOptions load;
  load.dummy = true;
  const auto weights = model::load_weights(*spec, "", load);
  EXPECT_TRUE(weights.ok());
  CpuRunnerOptions options;
  options.num_instances = 2;
  options.num_blocks = 64;
  options.max_rows = 16;
  options.num_threads = 2;
  options.profile = profile;
  auto runner = CpuRunner::create(spec, weights.value(), options);
  EXPECT_TRUE(runner.ok());
  engine::EngineOptions limits;
  limits.scheduler.num_blocks = {64, 64};
  limits.scheduler.block_size = 16;
  limits.scheduler.max_batched_tokens = 16;
  limits.scheduler.max_num_seqs = 16;
  auto policy = scheduler::make_policy("uniform_cp", {.num_instances = 2, .degree = 2});
  EXPECT_TRUE(policy.ok());
  const SteadyClock clock;
  engine::Engine engine(limits, std::move(policy.value()), **runner, clock, Random(1));
  for (int i = 0; i < 2; ++i) {
    request::Request request;
    request.prompt.assign(200, 1);
    request.max_tokens = 8;
    request.ignore_eos = true;
    request.synthetic_kv = true;
    EXPECT_TRUE(engine.add_request(request).ok());
  }
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(engine.step().ok());
  return {engine.last_spans().begin(), engine.last_spans().end()};
}

TEST(CpuProfile, SpansCoverTheStepWithoutGapsOnEveryInstance) {
  int num_layers = 0;
  const auto spans = run_steps(true, &num_layers);
  ASSERT_EQ(spans.size(), 2U);
  for (const auto& instance : spans) {
    ASSERT_FALSE(instance.empty());
    std::array<int, engine::kNumPhases> num_of = {};
    for (size_t i = 0; i < instance.size(); ++i) {
      const PhaseSpan& span = instance[i];
      EXPECT_GE(span.duration_us, 0.0);
      EXPECT_LT(span.layer, num_layers);
      ++num_of[static_cast<size_t>(span.phase)];
      if (i == 0) continue;
      EXPECT_NEAR(span.start_us, instance[i - 1].start_us + instance[i - 1].duration_us, 1e-3);
    }
    for (const Phase phase : {Phase::kRoute, Phase::kAttention, Phase::kMerge, Phase::kDispatch,
                              Phase::kIdleWait, Phase::kExperts, Phase::kCombine}) {
      EXPECT_EQ(num_of[static_cast<size_t>(phase)], num_layers) << to_string(phase);
    }
    EXPECT_EQ(num_of[static_cast<size_t>(Phase::kHead)], 1);
    EXPECT_EQ(instance.back().phase, Phase::kHead);
  }
}

TEST(CpuProfile, ReadsNoTimesUnlessAsked) {
  int num_layers = 0;
  EXPECT_TRUE(run_steps(false, &num_layers).empty());
}

}  // namespace
}  // namespace nanocp::runner
