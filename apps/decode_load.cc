#include "apps/decode_load.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <unordered_map>
#include <utility>

#include "apps/decode_bench.h"

namespace nanocp::apps {
namespace {

constexpr double kUsPerSecond = 1e6;
constexpr int64_t kNapUs = 20'000;  // at most, so that an interrupt is seen

class DecodeLoad {
 public:
  DecodeLoad(engine::Engine& engine, const Clock& clock, const std::vector<sim::Arrival>& arrivals,
             const DecodeLoadOptions& options)
      : engine_(engine),
        clock_(clock),
        arrivals_(arrivals),
        options_(options),
        start_us_(clock.now_us()) {
    result_.records.reserve(arrivals.size());
  }

  Result<DecodeLoadResult> run() {
    while (!is_over()) {
      admit_arrivals();
      if (engine_.has_work()) {
        NANOCP_RETURN_IF_ERROR(step());
      } else {
        nap();
      }
    }
    return finish();
  }

 private:
  int64_t now_us() const { return clock_.now_us() - start_us_; }

  bool is_over() {
    if (options_.interrupted && options_.interrupted()) {
      result_.is_interrupted = true;
      return true;
    }
    if (num_arrived_ < arrivals_.size()) return false;
    if (!engine_.has_work()) return true;
    const int64_t last_us = arrivals_.empty() ? 0 : arrivals_.back().time_us;
    return static_cast<double>(now_us() - last_us) > options_.drain_s * kUsPerSecond;
  }

  // Until the next arrival, or a little.
  void nap() {
    if (num_arrived_ == arrivals_.size()) return;
    const int64_t gap_us = arrivals_[num_arrived_].time_us - now_us();
    if (gap_us <= 0) return;
    std::this_thread::sleep_for(std::chrono::microseconds(std::min(gap_us, kNapUs)));
    // A pause between requests is no step.
    last_step_us_ = now_us();
  }

  void admit_arrivals() {
    while (num_arrived_ < arrivals_.size() && arrivals_[num_arrived_].time_us <= now_us()) {
      add(arrivals_[num_arrived_++]);
    }
  }

  void add(const sim::Arrival& arrival) {
    sim::RequestRecord record{.arrival = arrival};
    record.is_measured = is_measured(arrival);
    request::Request request = synthetic_request(
        arrival.num_prompt_tokens, static_cast<int>(arrival.num_output_tokens), num_arrived_);
    request.synthetic_kv = options_.prefill_elsewhere;
    const Result<SequenceId> id = engine_.add_request(std::move(request));
    record.is_refused = !id.ok();
    if (id.ok()) record_of_[*id] = result_.records.size();
    result_.records.push_back(record);
  }

  bool is_measured(const sim::Arrival& arrival) const {
    return static_cast<double>(arrival.time_us) >= options_.warmup_s * kUsPerSecond;
  }

  Status step() {
    NANOCP_ASSIGN_OR_RETURN(const std::vector<engine::TokenEvent> events, engine_.step());
    const int64_t end_us = now_us();
    if (events.empty()) return ok_status();
    for (const engine::TokenEvent& event : events) commit(event, end_us);
    sum_step_us_ += static_cast<double>(end_us - last_step_us_);
    ++result_.num_steps;
    last_step_us_ = end_us;
    add_straggler();
    return ok_status();
  }

  // A step begins when the one before it has ended.
  void commit(const engine::TokenEvent& event, int64_t end_us) {
    sim::RequestRecord& record = result_.records[record_of_.at(event.sequence)];
    if (record.start_us < 0) record.start_us = std::max(last_step_us_, record.arrival.time_us);
    ++record.num_tokens;
    ++result_.num_tokens;
    if (!event.summary) return;
    record.finish_us = end_us;
    record.degree = static_cast<int32_t>(event.summary->kv_tokens.size());
    record.num_preemptions = event.summary->num_preemptions;
    record_of_.erase(event.sequence);
  }

  void add_straggler() {
    double largest = 0.0;
    double sum = 0.0;
    for (const std::vector<engine::PhaseSpan>& spans : engine_.last_spans()) {
      double busy_us = 0.0;
      for (const engine::PhaseSpan& span : spans) {
        if (span.phase != engine::Phase::kIdleWait) busy_us += span.duration_us;
      }
      largest = std::max(largest, busy_us);
      sum += busy_us;
    }
    if (sum <= 0.0) return;
    sum_straggler_ += largest * static_cast<double>(engine_.last_spans().size()) / sum;
    ++num_profiled_;
  }

  DecodeLoadResult finish() {
    for (const auto& [id, record] : record_of_) static_cast<void>(engine_.cancel(id));
    for (; num_arrived_ < arrivals_.size(); ++num_arrived_) {  // interrupted
      sim::RequestRecord record{.arrival = arrivals_[num_arrived_]};
      record.is_measured = is_measured(record.arrival);
      result_.records.push_back(record);
    }
    result_.metrics = sim::compute_metrics(result_.records, options_.objectives);
    result_.duration_s = static_cast<double>(now_us()) / kUsPerSecond;
    if (result_.num_steps > 0) {
      result_.mean_step_us = sum_step_us_ / static_cast<double>(result_.num_steps);
    }
    if (num_profiled_ > 0) {
      result_.straggler_ratio = sum_straggler_ / static_cast<double>(num_profiled_);
    }
    return std::move(result_);
  }

  engine::Engine& engine_;
  const Clock& clock_;
  const std::vector<sim::Arrival>& arrivals_;
  const DecodeLoadOptions& options_;
  const int64_t start_us_;
  DecodeLoadResult result_;
  std::unordered_map<SequenceId, size_t> record_of_;  // of open sequences
  size_t num_arrived_ = 0;
  int64_t last_step_us_ = 0;  // end of the last step, or of the pause after it
  double sum_step_us_ = 0.0;
  double sum_straggler_ = 0.0;
  uint64_t num_profiled_ = 0;
};

}  // namespace

Result<DecodeLoadResult> run_decode_load(engine::Engine& engine, const Clock& clock,
                                         const std::vector<sim::Arrival>& arrivals,
                                         const DecodeLoadOptions& options) {
  return DecodeLoad(engine, clock, arrivals, options).run();
}

}  // namespace nanocp::apps
