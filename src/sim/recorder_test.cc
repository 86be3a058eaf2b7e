// What is kept of a simulation's course: within its bounds, and true to the steps.
#include "sim/recorder.h"

#include <gtest/gtest.h>

namespace nanocp::sim {
namespace {

scheduler::CostModel make_model() {
  scheduler::CostModel model;
  model.shape = {.num_layers = 2, .num_moe_layers = 2, .num_instances = 2};
  model.constants.attention_us_per_kv_token = 1.0;
  model.constants.dense_fixed_us = 10.0;
  model.constants.exchange_fixed_us = 5.0;
  model.constants.expert_fixed_us = 3.0;
  model.constants.step_fixed_us = 4.0;
  return model;
}

std::vector<scheduler::InstanceWork> make_work() {
  std::vector<scheduler::InstanceWork> work(2);
  work[0] = {.num_rows = 1, .num_attended_rows = 1, .num_kv_tokens = 30};
  work[1] = {.num_rows = 1, .num_attended_rows = 1, .num_kv_tokens = 10};
  return work;
}

// `num_steps` equal steps of 100 ms, with a queue as long as the step's number.
Recording record(const RecorderOptions& options, uint64_t num_steps) {
  const scheduler::CostModel model = make_model();
  const auto work = make_work();
  const scheduler::StepCost cost = model.step(work);
  std::vector<scheduler::InstanceLoad> loads(2);
  loads[0] = {.num_blocks = 100, .num_free_blocks = 25};
  loads[0].num_sequences = 3;
  loads[1] = {.num_blocks = 100, .num_free_blocks = 100};
  Recorder recorder(options, model);
  for (uint64_t i = 0; i < num_steps; ++i) {
    const auto start_us = static_cast<int64_t>(i) * 100'000;
    recorder.add({.step = i,
                  .start_us = start_us,
                  .end_us = start_us + 100'000,
                  .cost = cost,
                  .work = work,
                  .loads = loads,
                  .num_waiting = static_cast<int64_t>(i)});
  }
  return recorder.finish();
}

TEST(Recorder, KeepsNothingUnlessAsked) {
  const Recording recording = record({}, 50);
  EXPECT_TRUE(recording.samples.empty());
  EXPECT_TRUE(recording.timeline.empty());
}

TEST(Recorder, SamplesAreThinnedOutAndStillCoverEveryStep) {
  for (const uint64_t num_steps : {1U, 7U, 100U, 10'000U}) {
    const Recording recording = record({.num_samples_max = 20}, num_steps);
    EXPECT_LE(recording.samples.size(), 20U);
    EXPECT_GE(recording.samples.size(), std::min<uint64_t>(num_steps, 10));
    uint64_t num_covered = 0;
    int64_t last_us = 0;
    for (const Sample& sample : recording.samples) {
      EXPECT_GT(sample.time_us, last_us);
      last_us = sample.time_us;
      num_covered += sample.num_steps;
      // Local times are 2 x (10 + 30) and 2 x (10 + 10).
      EXPECT_NEAR(sample.straggler_ratio, 80.0 / 60.0, 1e-9);
      EXPECT_NEAR(sample.straggler_max, 80.0 / 60.0, 1e-9);
      EXPECT_NEAR(sample.step_us, 80.0 + 10.0 + 6.0 + 4.0, 1e-9);
      EXPECT_FLOAT_EQ(sample.kv_share[0], 0.75F);
      EXPECT_EQ(sample.num_rows, (std::vector<int32_t>{3, 0}));
      EXPECT_EQ(sample.num_waiting, sample.time_us / 100'000 - 1) << "the state at its time";
    }
    // Those after the last sample are in none.
    EXPECT_LE(num_covered, num_steps);
    EXPECT_GE(num_covered, num_steps - num_steps / 8);
  }
}

TEST(Recorder, AGivenIntervalIsKept) {
  const Recording recording = record({.sample_every_s = 1.0}, 1000);
  ASSERT_EQ(recording.samples.size(), 100U);
  EXPECT_EQ(recording.samples[1].time_us - recording.samples[0].time_us, 1'000'000);
}

TEST(Recorder, TheTimelineIsAWindowWhosePartsAddUp) {
  const Recording recording = record({.timeline_from_s = 2.0, .num_timeline_steps = 5}, 100);
  ASSERT_EQ(recording.timeline.size(), 5U);
  EXPECT_EQ(recording.timeline[0].step, 20U);
  EXPECT_EQ(recording.timeline[0].start_us, 2'000'000);
  for (const TimelineStep& step : recording.timeline) {
    ASSERT_EQ(step.instances.size(), 2U);
    EXPECT_DOUBLE_EQ(step.instances[0].idle_us, 0.0);
    EXPECT_DOUBLE_EQ(step.instances[1].idle_us, 40.0);
    EXPECT_EQ(step.instances[0].num_kv_tokens, 30);
    for (const InstanceTimes& one : step.instances) {
      EXPECT_DOUBLE_EQ(one.dense_us + one.route_us + one.attention_us + one.idle_us, 80.0);
    }
    EXPECT_DOUBLE_EQ(step.exchange_us + step.experts_us + step.other_us, 20.0);
  }
  const PhaseTimes& phases = recording.phases;
  EXPECT_DOUBLE_EQ(phases.idle_us, 20.0);
  EXPECT_DOUBLE_EQ(phases.dense_us, 20.0);
  EXPECT_DOUBLE_EQ(phases.attention_us, 40.0);
}

}  // namespace
}  // namespace nanocp::sim
