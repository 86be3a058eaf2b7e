// What a simulation keeps of its course for reports: the state of all instances over time, some
// steps in full, and where the time went. Its memory is bounded however long the simulation runs.
// Plain data; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/cost_model.h"
#include "scheduler/policy.h"

namespace nanocp::sim {

struct RecorderOptions {
  // Virtual time between samples. 0: as short as `num_samples_max` allows.
  double sample_every_s = 0.0;
  // More are thinned out to half and the time between them doubled. 0: never thinned, and none at
  // all without `sample_every_s`.
  int32_t num_samples_max = 0;
  double timeline_from_s = 0.0;  // virtual time of the first step that is kept in full
  int32_t num_timeline_steps = 0;

  bool takes_samples() const { return sample_every_s > 0.0 || num_samples_max > 0; }
};

// The state of all instances at one time, and means of the steps since the sample before.
struct Sample {
  int64_t time_us = 0;
  uint64_t num_steps = 0;
  double step_us = 0.0;
  double straggler_ratio = 0.0;  // slowest instance over the mean, by local time
  double straggler_max = 0.0;    // of one step
  int64_t num_waiting = 0;
  std::vector<float> kv_share;    // [num_instances] of its blocks in use
  std::vector<int32_t> num_rows;  // [num_instances] sequences bound to it
};

// One instance in one step. Times are those of all layers together.
struct InstanceTimes {
  double dense_us = 0.0;
  double route_us = 0.0;
  double attention_us = 0.0;
  double idle_us = 0.0;  // until the slowest instance is through with these three
  int32_t num_rows = 0;
  int64_t num_kv_tokens = 0;  // that it attends to
};

struct TimelineStep {
  uint64_t step = 0;  // counts from 0
  int64_t start_us = 0;
  double exchange_us = 0.0;  // dispatch and combine; they, experts and the rest are the same on all
  double experts_us = 0.0;
  double other_us = 0.0;
  std::vector<InstanceTimes> instances;  // [num_instances]
};

// Means over steps and instances.
struct PhaseTimes {
  double dense_us = 0.0;
  double route_us = 0.0;
  double attention_us = 0.0;
  double idle_us = 0.0;
  double exchange_us = 0.0;
  double experts_us = 0.0;
  double other_us = 0.0;
};

struct Recording {
  std::vector<Sample> samples;
  std::vector<TimelineStep> timeline;
  PhaseTimes phases;  // zeros unless something is recorded
};

// A step that is over.
struct StepRecord {
  uint64_t step = 0;
  int64_t start_us = 0;
  int64_t end_us = 0;
  const scheduler::StepCost& cost;
  std::span<const scheduler::InstanceWork> work;   // [num_instances]
  std::span<const scheduler::InstanceLoad> loads;  // [num_instances]
  int64_t num_waiting = 0;
};

class Recorder {
 public:
  // The cost model outlives the recorder.
  Recorder(const RecorderOptions& options, const scheduler::CostModel& model);

  // Requires: steps come in their order.
  void add(const StepRecord& record);
  Recording finish();

 private:
  void add_phases(const StepRecord& record);
  void add_sample(const StepRecord& record);
  void add_timeline_step(const StepRecord& record);
  void thin_out();
  InstanceTimes times_of(const scheduler::InstanceWork& work, double local_us) const;

  const RecorderOptions options_;
  const scheduler::CostModel& model_;
  Recording recording_;
  uint64_t num_steps_ = 0;
  int64_t interval_us_ = 0;
  int64_t next_sample_us_ = 0;
  // Of the steps since the last sample.
  uint64_t num_since_ = 0;
  double sum_step_us_ = 0.0;
  double sum_straggler_ = 0.0;
  double straggler_max_ = 0.0;
};

}  // namespace nanocp::sim
