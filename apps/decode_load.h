// Requests that come over time, through the real engine and runner: what `nanocp simulate`
// predicts, measured. One thread, which sleeps while no request is open.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "sim/metrics.h"
#include "sim/workload.h"

namespace nanocp::apps {

struct DecodeLoadOptions {
  sim::Objectives objectives;
  double warmup_s = 0.0;  // arrivals before are served and not measured
  double drain_s = 30.0;  // time after the last arrival; what has not finished then is a miss
  // Requests come with K/V (synthetic) for their prompts; else prompts are prefilled here.
  bool prefill_elsewhere = true;
  std::function<bool()> interrupted;  // may be empty
};

struct DecodeLoadResult {
  std::vector<sim::RequestRecord> records;  // in order of arrival
  sim::Metrics metrics;
  uint64_t num_steps = 0;
  int64_t num_tokens = 0;  // sampled
  double duration_s = 0.0;
  double mean_step_us = 0.0;  // of steps that gave tokens, from the step before to this one
  // Busiest instance over the mean of all, by the time not spent waiting, mean over steps; 0 unless
  // the runner profiles.
  double straggler_ratio = 0.0;
  bool is_interrupted = false;
};

// Arrivals by rising time, which counts from now. Open requests are cancelled at the end. Fails
// when the engine does.
Result<DecodeLoadResult> run_decode_load(engine::Engine& engine, const Clock& clock,
                                         const std::vector<sim::Arrival>& arrivals,
                                         const DecodeLoadOptions& options);

}  // namespace nanocp::apps
