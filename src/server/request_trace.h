// The lives of the last requests and the last steps, for chrome://tracing and Perfetto. Bounded
// however long the server runs. The engine loop's thread adds and never waits; any thread reads.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

#include "server/engine_observer.h"
#include "server/ring.h"

namespace nanocp::server {

class RequestTrace final : public EngineObserver {
 public:
  static constexpr size_t kSequencesMax = 4096;
  static constexpr size_t kStepsMax = 8192;

  // Times in traces count from `start_us` of the loop's clock.
  explicit RequestTrace(int64_t start_us, size_t num_sequences_max = kSequencesMax)
      : start_us_(start_us), sequences_(num_sequences_max) {}

  void on_step(const StepRecord& step) override;
  void on_end(const SequenceRecord& sequence) override;

  // The trace-event form: an object with traceEvents. Each request is a row of its own with the
  // spans queue, prefill and decode; steps are spans of the process "engine".
  std::string chrome_trace() const;
  // What was not kept since somebody was reading.
  uint64_t num_missed() const;

 private:
  struct Step {
    int64_t start_us;
    int64_t end_us;
    int64_t num_tokens;
  };

  const int64_t start_us_;
  mutable std::mutex mutex_;
  Ring<SequenceRecord> sequences_;  // this and what follows: guarded by mutex_
  Ring<Step> steps_{kStepsMax};
  std::atomic<uint64_t> num_missed_ = 0;
};

}  // namespace nanocp::server
