// Measures decoding alone: requests of given context lengths whose K/V is synthetic, all running at
// once, one token each per step. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "apps/step_bytes.h"
#include "base/result.h"
#include "engine/engine.h"
#include "model/model_spec.h"
#include "request/request.h"

namespace nanocp::apps {

struct DecodeBenchOptions {
  std::vector<int64_t> contexts;  // tokens of each request
  int num_warmup_steps = 5;
  int num_steps = 50;
  const model::ModelSpec* spec = nullptr;  // to count bytes; null: they are not
  StepFormats formats;                     // for that
};

struct StepStats {
  double mean_us = 0.0;
  double p50_us = 0.0;
  double p99_us = 0.0;
  double min_us = 0.0;
  double max_us = 0.0;
};
// Nearest-rank percentiles. Requires: not empty.
StepStats step_stats(std::vector<double> step_us);

struct InstanceReport {
  int64_t num_rows = 0;                                  // bound requests
  int64_t num_kv_tokens = 0;                             // held
  std::array<double, engine::kNumPhases> phase_us = {};  // mean per step; zero unless profiling
  StepBytes bytes;                                       // of the last step
};

struct DecodeReport {
  StepStats tpot;
  double tokens_per_s = 0.0;
  int64_t num_requests = 0;
  std::vector<int64_t> num_by_degree;  // [instances + 1] requests
  std::vector<InstanceReport> instances;
  // Busiest instance over the mean of all, by the time not spent waiting; 0 unless profiling.
  double straggler_ratio = 0.0;
  // Between the end of a step on an instance's device and the start of the next, over all
  // instances and steps: what the host's work costs.
  double host_gap_us = 0.0;
  // Of the last measured step, by instance; empty unless profiling.
  std::vector<std::vector<engine::PhaseSpan>> last_spans;
};

// A request of `num_tokens` with synthetic K/V. Its tokens are drawn, not the best: rows then
// differ from one another as those of real requests do, and so do the experts that they go to.
request::Request synthetic_request(int64_t num_tokens, int num_outputs, uint64_t seed);

// Adds the requests, waits until all run, and measures. Fails when they do not all fit at once.
Result<DecodeReport> run_decode_bench(engine::Engine& engine, const DecodeBenchOptions& options);

}  // namespace nanocp::apps
