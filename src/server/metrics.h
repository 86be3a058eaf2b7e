// What GET /metrics tells: the life of requests and of steps as counters and histograms, under
// vLLM's names where it has them, and the state of the instances. Owned by the Observability of a
// server. The engine loop's thread records, without locks; any thread asks for the text.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "plan/step_phase.h"
#include "server/engine_observer.h"
#include "server/histogram.h"

namespace nanocp::server {

struct MetricsOptions {
  std::string model_name;
  std::string version;
  int64_t max_model_len = 0;  // the largest bucket of token counts
};

// Of finished requests, cut at the times of a SequenceRecord.
struct RequestHistograms {
  explicit RequestHistograms(int64_t max_model_len);

  Histogram e2e;
  Histogram queue;
  Histogram inference;
  Histogram prefill;
  Histogram decode;
  Histogram time_per_output_token;
  Histogram prompt_tokens;
  Histogram generation_tokens;
  Histogram max_tokens;
  Histogram degree;
};

struct StepHistograms {
  StepHistograms();

  Histogram first_token;
  Histogram inter_token;
  Histogram duration;
  Histogram num_rows;
  Histogram num_tokens;
  Histogram slowest_over_mean;  // by time not spent waiting; only when the runner profiles
};

class Metrics final : public EngineObserver {
 public:
  explicit Metrics(const MetricsOptions& options);

  void on_step(const StepRecord& step) override;
  void on_end(const SequenceRecord& sequence) override;

  // An answered HTTP request. `path` is that of a route, so there are few. Any thread; locks.
  void count_response(const std::string& path, int status);

  // Sum and number of the times between tokens.
  double inter_token_s() const { return steps_.inter_token.sum(); }
  uint64_t num_inter_token() const { return steps_.inter_token.total(); }
  // The last profiled step's, 0 when there was none.
  double slowest_over_mean() const { return slowest_over_mean_.load(std::memory_order_relaxed); }

  // In Prometheus' text format, version 0.0.4. Any thread.
  std::string text(const ClusterSnapshot& snapshot) const;
  static constexpr const char* kContentType = "text/plain; version=0.0.4; charset=utf-8";

 private:
  void add_phases(const StepRecord& step);

  const MetricsOptions options_;
  RequestHistograms requests_;
  StepHistograms steps_;
  std::array<std::atomic<uint64_t>, 4> num_ended_ = {};           // by request::FinishReason - 1
  std::array<std::atomic<double>, kNumStepPhases> phase_s_ = {};  // mean over instances, summed up
  std::atomic<double> slowest_over_mean_ = 0.0;
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> responses_;  // guarded by mutex_
};

// Busiest instance over the mean of all, by the time of a step not spent waiting for others; 0
// without spans.
double busiest_over_mean(std::span<const std::vector<engine::PhaseSpan>> spans);

}  // namespace nanocp::server
