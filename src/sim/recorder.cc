#include "sim/recorder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nanocp::sim {
namespace {

constexpr int64_t kShortestIntervalUs = 20'000;

// The later state, with the means of both.
Sample joined(const Sample& earlier, Sample later) {
  const auto a = static_cast<double>(earlier.num_steps);
  const auto b = static_cast<double>(later.num_steps);
  later.step_us = (a * earlier.step_us + b * later.step_us) / (a + b);
  later.straggler_ratio = (a * earlier.straggler_ratio + b * later.straggler_ratio) / (a + b);
  later.straggler_max = std::max(earlier.straggler_max, later.straggler_max);
  later.num_steps += earlier.num_steps;
  return later;
}

}  // namespace

Recorder::Recorder(const RecorderOptions& options, const scheduler::CostModel& model)
    : options_(options), model_(model) {
  interval_us_ = options.sample_every_s > 0.0
                     ? static_cast<int64_t>(std::llround(options.sample_every_s * 1e6))
                     : kShortestIntervalUs;
}

void Recorder::add(const StepRecord& record) {
  if (options_.takes_samples() || options_.num_timeline_steps > 0) add_phases(record);
  if (options_.takes_samples()) add_sample(record);
  const bool is_kept = std::ssize(recording_.timeline) < options_.num_timeline_steps &&
                       static_cast<double>(record.start_us) >= options_.timeline_from_s * 1e6;
  if (is_kept) add_timeline_step(record);
}

InstanceTimes Recorder::times_of(const scheduler::InstanceWork& work, double local_us) const {
  InstanceTimes times;
  times.dense_us = model_.dense_us(work);
  times.route_us = model_.route_us(work);
  times.attention_us = model_.attention_us(work);
  times.idle_us = std::max(0.0, local_us - times.dense_us - times.route_us - times.attention_us);
  times.num_rows = work.num_rows;
  times.num_kv_tokens = work.num_kv_tokens;
  return times;
}

// Sums; finish() divides them.
void Recorder::add_phases(const StepRecord& record) {
  ++num_steps_;
  PhaseTimes& sums = recording_.phases;
  const auto num_instances = static_cast<double>(record.work.size());
  for (const scheduler::InstanceWork& work : record.work) {
    const InstanceTimes times = times_of(work, record.cost.local_us);
    sums.dense_us += times.dense_us / num_instances;
    sums.route_us += times.route_us / num_instances;
    sums.attention_us += times.attention_us / num_instances;
    sums.idle_us += times.idle_us / num_instances;
  }
  sums.exchange_us += record.cost.exchange_us;
  sums.experts_us += record.cost.experts_us;
  sums.other_us += record.cost.other_us;
}

void Recorder::add_sample(const StepRecord& record) {
  const scheduler::StepCost& cost = record.cost;
  const double straggler = cost.mean_local_us > 0.0 ? cost.local_us / cost.mean_local_us : 1.0;
  ++num_since_;
  sum_step_us_ += cost.step_us;
  sum_straggler_ += straggler;
  straggler_max_ = std::max(straggler_max_, straggler);
  if (record.end_us < next_sample_us_) return;
  const auto num_since = static_cast<double>(num_since_);
  Sample sample{.time_us = record.end_us,
                .num_steps = std::exchange(num_since_, 0),
                .step_us = std::exchange(sum_step_us_, 0.0) / num_since,
                .straggler_ratio = std::exchange(sum_straggler_, 0.0) / num_since,
                .straggler_max = std::exchange(straggler_max_, 0.0),
                .num_waiting = record.num_waiting,
                .kv_share = {},
                .num_rows = {}};
  sample.kv_share.reserve(record.loads.size());
  sample.num_rows.reserve(record.loads.size());
  for (const scheduler::InstanceLoad& load : record.loads) {
    sample.kv_share.push_back(static_cast<float>(load.num_used_blocks()) /
                              static_cast<float>(load.num_blocks));
    sample.num_rows.push_back(load.num_sequences);
  }
  recording_.samples.push_back(std::move(sample));
  if (options_.num_samples_max > 0 && std::ssize(recording_.samples) > options_.num_samples_max) {
    thin_out();
  }
  next_sample_us_ = record.end_us + interval_us_;
}

void Recorder::thin_out() {
  std::vector<Sample>& samples = recording_.samples;
  size_t num_kept = 0;
  for (size_t i = 0; i < samples.size(); i += 2) {
    const bool has_pair = i + 1 < samples.size();
    Sample kept = has_pair ? joined(samples[i], std::move(samples[i + 1])) : std::move(samples[i]);
    samples[num_kept++] = std::move(kept);
  }
  samples.resize(num_kept);
  interval_us_ *= 2;
}

void Recorder::add_timeline_step(const StepRecord& record) {
  TimelineStep step{.step = record.step,
                    .start_us = record.start_us,
                    .exchange_us = record.cost.exchange_us,
                    .experts_us = record.cost.experts_us,
                    .other_us = record.cost.other_us,
                    .instances = {}};
  step.instances.reserve(record.work.size());
  for (const scheduler::InstanceWork& work : record.work) {
    step.instances.push_back(times_of(work, record.cost.local_us));
  }
  recording_.timeline.push_back(std::move(step));
}

Recording Recorder::finish() {
  PhaseTimes& phases = recording_.phases;
  for (double* sum : {&phases.dense_us, &phases.route_us, &phases.attention_us, &phases.idle_us,
                      &phases.exchange_us, &phases.experts_us, &phases.other_us}) {
    *sum /= static_cast<double>(std::max<uint64_t>(1, num_steps_));
  }
  return std::move(recording_);
}

}  // namespace nanocp::sim
