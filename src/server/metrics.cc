#include "server/metrics.h"

#include <algorithm>
#include <vector>

namespace nanocp::server {

using request::FinishReason;

namespace {

// The buckets are vLLM's, so that its dashboards fit.
std::vector<double> first_token_bounds() {
  return {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
          1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
}
std::vector<double> token_time_bounds() {
  return {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,  0.3,  0.4, 0.5,
          0.75, 1.0,   2.5,  5.0,   7.5, 10.0, 20.0, 40.0, 80.0};
}
std::vector<double> request_time_bounds() {
  return {0.3,  0.5,  0.8,  1.0,  1.5,   2.0,   2.5,   5.0,   10.0,   15.0,  20.0,
          30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}

std::vector<double> step_size_bounds() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

// 1, 2, 5, 10, 20 … up to `most`.
std::vector<double> token_count_bounds(int64_t most) {
  std::vector<double> bounds;
  for (int64_t power = 1; power <= most; power *= 10) {
    for (const int64_t factor : {1, 2, 5}) {
      if (factor * power <= most) bounds.push_back(static_cast<double>(factor * power));
    }
  }
  return bounds;
}

double seconds(int64_t from_us, int64_t to_us) {
  return static_cast<double>(to_us - from_us) * 1e-6;
}

// Times that did not happen are not observed.
void observe_between(Histogram& histogram, int64_t from_us, int64_t to_us) {
  if (from_us >= 0 && to_us >= from_us) histogram.observe(seconds(from_us, to_us));
}

}  // namespace

RequestHistograms::RequestHistograms(int64_t max_model_len)
    : e2e(request_time_bounds()),
      queue(request_time_bounds()),
      inference(request_time_bounds()),
      prefill(request_time_bounds()),
      decode(request_time_bounds()),
      time_per_output_token(token_time_bounds()),
      prompt_tokens(token_count_bounds(max_model_len)),
      generation_tokens(token_count_bounds(max_model_len)),
      max_tokens(token_count_bounds(max_model_len)),
      degree({1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}) {}

StepHistograms::StepHistograms()
    : first_token(first_token_bounds()),
      inter_token(token_time_bounds()),
      duration({0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10}),
      num_rows(step_size_bounds()),
      num_tokens(step_size_bounds()),
      slowest_over_mean({1.01, 1.02, 1.05, 1.1, 1.15, 1.2, 1.3, 1.5, 2, 3, 5}) {}

Metrics::Metrics(const MetricsOptions& options)
    : options_(options), requests_(options.max_model_len) {}

void Metrics::on_step(const StepRecord& step) {
  steps_.duration.observe(seconds(step.start_us, step.end_us));
  steps_.num_rows.observe(static_cast<double>(step.num_rows));
  steps_.num_tokens.observe(static_cast<double>(step.num_tokens));
  for (const double time_s : step.inter_token_s) steps_.inter_token.observe(time_s);
  for (const double time_s : step.first_token_s) steps_.first_token.observe(time_s);
  if (!step.spans.empty()) add_phases(step);
}

void Metrics::add_phases(const StepRecord& step) {
  const double share = 1e-6 / static_cast<double>(step.spans.size());
  std::array<double, kNumStepPhases> sums = {};
  for (const std::vector<engine::PhaseSpan>& instance : step.spans) {
    for (const engine::PhaseSpan& span : instance) {
      sums[static_cast<size_t>(span.phase)] += span.duration_us;
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) add_as_only_writer(phase_s_[i], sums[i] * share);
  const double ratio = busiest_over_mean(step.spans);
  if (ratio <= 0.0) return;
  slowest_over_mean_.store(ratio, std::memory_order_relaxed);
  steps_.slowest_over_mean.observe(ratio);
}

void Metrics::on_end(const SequenceRecord& sequence) {
  const FinishReason reason = sequence.finish_reason;
  if (reason == FinishReason::kNone) return;
  add_as_only_writer<uint64_t>(num_ended_[static_cast<size_t>(reason) - 1], 1);
  // Times of those that were cut short would mix with those of whole answers.
  if (reason != FinishReason::kStop && reason != FinishReason::kLength) return;
  observe_between(requests_.e2e, sequence.arrival_us, sequence.end_us);
  observe_between(requests_.queue, sequence.arrival_us, sequence.scheduled_us);
  observe_between(requests_.inference, sequence.scheduled_us, sequence.last_token_us);
  observe_between(requests_.prefill, sequence.scheduled_us, sequence.first_token_us);
  observe_between(requests_.decode, sequence.first_token_us, sequence.last_token_us);
  if (sequence.num_output_tokens > 1) {
    requests_.time_per_output_token.observe(
        seconds(sequence.first_token_us, sequence.last_token_us) /
        static_cast<double>(sequence.num_output_tokens - 1));
  }
  requests_.prompt_tokens.observe(static_cast<double>(sequence.num_prompt_tokens));
  requests_.generation_tokens.observe(static_cast<double>(sequence.num_output_tokens));
  requests_.max_tokens.observe(static_cast<double>(sequence.max_tokens));
  const size_t degree = sequence.summary.kv_tokens.size();
  if (degree > 0) requests_.degree.observe(static_cast<double>(degree));
}

void Metrics::count_response(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++responses_[{path, status}];
}

double busiest_over_mean(std::span<const std::vector<engine::PhaseSpan>> spans) {
  double sum = 0.0;
  double most = 0.0;
  for (const std::vector<engine::PhaseSpan>& instance : spans) {
    double busy_us = 0.0;
    for (const engine::PhaseSpan& span : instance) {
      if (span.phase != StepPhase::kIdleWait) busy_us += span.duration_us;
    }
    sum += busy_us;
    most = std::max(most, busy_us);
  }
  return sum > 0.0 ? most * static_cast<double>(spans.size()) / sum : 0.0;
}

}  // namespace nanocp::server
