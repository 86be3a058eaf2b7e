// What the engine and its instances are doing: for the live page, metrics and /load. Made by the
// EngineLoop on its thread a few times a second, immutable afterwards, read by any thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "plan/ids.h"
#include "plan/step_phase.h"

namespace nanocp::server {

struct InstanceSnapshot {
  int64_t num_blocks = 0;  // of KV, in its pool
  int64_t num_used_blocks = 0;
  int64_t num_kv_tokens = 0;           // stored on it
  int32_t num_sequences = 0;           // running ones that are bound to it
  int32_t num_rows = 0;                // own rows of the last step
  int32_t num_routed_queries = 0;      // of them, sent to other holders, once for each; one layer
  int64_t num_attended_kv_tokens = 0;  // seen by the rows of its attention; one layer
};

// A request that is spread over instances or is among the longest.
struct LongRequest {
  SequenceId sequence = 0;
  InstanceId binding = kNoInstance;
  int64_t num_prompt_tokens = 0;
  int64_t num_output_tokens = 0;
  int64_t num_kv_tokens = 0;                              // stored
  int64_t arrival_us = 0;                                 // of the EngineLoop's clock
  std::vector<std::pair<InstanceId, int64_t>> kv_tokens;  // per holder
};

struct StepSnapshot {
  double duration_ms = 0.0;  // of the last step
  double mean_ms = 0.0;      // of the last second's
  // The instance with most attention (KV tokens seen) over the mean of all, last step; 1: level.
  double slowest_over_mean = 1.0;
  // Of the last step, mean over instances, in ms; zeros unless the runner profiles.
  std::array<double, kNumStepPhases> phase_ms = {};
  bool has_phases = false;
};

// Since the start.
struct TokenCounters {
  int64_t num_prompt_tokens = 0;  // of requests whose first token came
  int64_t num_output_tokens = 0;
  int64_t num_preemptions = 0;
  uint64_t num_steps = 0;
};

struct RequestCounters {
  int64_t num_waiting = 0;    // now
  int64_t num_running = 0;    // now
  int64_t num_finished = 0;   // since the start, with an end or length stop
  int64_t num_cancelled = 0;  // since the start
  int64_t num_refused = 0;    // since the start: can never fit, or the queue was full
};

struct ClusterSnapshot {
  int64_t time_us = 0;  // of the EngineLoop's clock
  int32_t block_size = 0;
  std::string policy;
  std::vector<InstanceSnapshot> instances;
  std::vector<LongRequest> long_requests;  // at most kLongRequestsMax, longest first
  std::vector<int64_t> num_by_degree;      // [largest degree + 1] running requests
  RequestCounters requests;
  StepSnapshot step;
  TokenCounters tokens;
};

constexpr size_t kLongRequestsMax = 32;

// Share of all KV blocks that are used, 0..1.
double kv_cache_usage(const ClusterSnapshot& snapshot);

}  // namespace nanocp::server
