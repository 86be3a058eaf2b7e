// What metrics and traces learn from the EngineLoop. Called on the loop's thread between steps, so
// implementations must be quick; times are of the loop's clock, in microseconds.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "request/request.h"
#include "server/cluster_snapshot.h"

namespace nanocp::server {

// The life of one sequence. Times that did not happen are -1.
struct SequenceRecord {
  SequenceId sequence = 0;
  std::string request_id;  // x-request-id
  size_t index = 0;        // of the sequence in its HTTP request
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  int64_t max_tokens = 0;
  int64_t arrival_us = -1;      // submit()
  int64_t scheduled_us = -1;    // start of its first step
  int64_t first_token_us = -1;  // end of the step that gave it
  int64_t last_token_us = -1;
  int64_t end_us = -1;
  request::FinishReason finish_reason = request::FinishReason::kNone;
  engine::SequenceSummary summary = {};  // empty if it had no blocks
};

struct StepRecord {
  int64_t start_us = 0;
  int64_t end_us = 0;
  int64_t num_rows = 0;    // prompt tokens and decode rows, of all instances
  int64_t num_tokens = 0;  // sampled
  // Between a token of this step and the one before of the same sequence, for each that has one.
  std::span<const double> inter_token_s = {};
  // From arrival to the first token, for each sequence that got it in this step.
  std::span<const double> first_token_s = {};
  // [num_instances]; empty unless the runner profiles.
  std::span<const std::vector<engine::PhaseSpan>> spans = {};
};

class EngineObserver {
 public:
  virtual ~EngineObserver() = default;
  virtual void on_step(const StepRecord& step) = 0;
  // Finished, cancelled or failed.
  virtual void on_end(const SequenceRecord& sequence) = 0;
  // Each time that one is published, the one after the last step included.
  virtual void on_snapshot(const ClusterSnapshot& /*snapshot*/) {}
};

}  // namespace nanocp::server
