// Controlled decode runs that the cost model's constants are fitted to: equal requests, the same
// number on every instance, so that no instance waits for a slower one. One thread.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "apps/calibrate_fit.h"
#include "apps/decode_bench.h"
#include "apps/engine_session.h"
#include "base/result.h"
#include "model/model_spec.h"

namespace nanocp::apps {

struct CalibrationGrid {
  std::vector<int64_t> rows;    // requests of one instance
  std::vector<int64_t> tokens;  // context of each of them
  int64_t kv_tokens_max = 0;    // of one instance; larger points are left out
  int num_warmup_steps = 5;
  int num_steps = 30;
};

// What one instance did per step of one run, in us (mean over the steps).
struct CalibrationPoint {
  bool is_split = false;  // every request over all instances; else each on one
  int run = 0;            // of the grid, the same for its local and its split run
  int instance = 0;
  int64_t num_rows = 0;
  int64_t num_kv_tokens = 0;
  int64_t route_bytes = 0;  // queries out and partials back per layer, for its own rows
  double step_us = 0.0;     // of the whole group, on the host
  // The same in a session that does not time phases; 0: not measured.
  double plain_step_us = 0.0;
  std::array<double, engine::kNumPhases> phase_us = {};
};

// Tokens and steps that the runs may take at most, for the session's KV cache.
SessionNeeds calibration_needs(const EngineOptions& options, const CalibrationGrid& grid);

// Runs the grid, each point with local requests and, with two instances or more, with split ones.
// Fails where the grid is empty, contexts do not fit, or the runner does not time its phases.
Result<std::vector<CalibrationPoint>> measure_points(EngineSession& session, EngineOptions options,
                                                     const model::ModelSpec& spec,
                                                     const CalibrationGrid& grid);

// Runs the grid once more, in a session that does not time phases, and fills in plain_step_us.
// Requires: points of measure_points with the same options and grid.
Status measure_plain_steps(EngineSession& session, EngineOptions options,
                           const model::ModelSpec& spec, const CalibrationGrid& grid,
                           std::vector<CalibrationPoint>& points);

// What it adds to a step that one phase of one layer is timed: the median over points. 0 where
// plain steps were not measured.
double timing_us_per_phase(const std::vector<CalibrationPoint>& points,
                           const model::ModelSpec& spec);

struct FittedConstant {
  const char* name;
  const char* unit;
  double value;
  int64_t num_points;
  double relative_error;  // of the fit that it comes from
  bool is_determined;     // the points tell it from the other constants of its fit
};

// What timing adds is taken off first. Requires: points not empty. Constants of routing are left
// out where nothing was split.
std::vector<FittedConstant> fit_constants(const std::vector<CalibrationPoint>& points,
                                          const model::ModelSpec& spec);

}  // namespace nanocp::apps
