// Runs a load through the production engine, scheduler and policy on a virtual clock, with the cost
// model in place of devices. Deterministic: the same arguments give the same plans, and so the same
// trace hash, on any machine. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "scheduler/cost_model.h"
#include "scheduler/options.h"
#include "scheduler/policy.h"
#include "sim/metrics.h"
#include "sim/recorder.h"
#include "sim/workload.h"

namespace nanocp::sim {

struct SimulationOptions {
  scheduler::SchedulerOptions scheduler;
  scheduler::CostModel cost;
  Objectives objectives;
  uint64_t seed = 1;
  // Requests come with their KV, computed elsewhere; else their prompts are prefilled here.
  bool prefill_elsewhere = true;
  double warmup_s = 0.0;      // arrivals before are served and not measured
  double drain_s = 600.0;     // time after the last arrival; what has not finished then is a miss
  bool stop_at_miss = false;  // end as soon as the objectives cannot be met any more
  RecorderOptions record;     // nothing by default
  bool plans_ahead = false;   // a step is planned before the one under way is over, as on GPUs
  // What the scheduler promises is checked in every step (sim/step_checker.h).
#ifdef NDEBUG
  bool checks_steps = false;
#else
  bool checks_steps = true;
#endif
  // Called now and then with the share of arrivals that have come; false stops the simulation.
  std::function<bool(double done)> progress;
};

// Why the engine did not take a request.
struct Refusal {
  size_t record = 0;
  std::string reason;
};

struct SimulationResult {
  std::vector<RequestRecord> records;  // in order of arrival
  Metrics metrics;
  bool is_stopped = false;  // by stop_at_miss or by `progress`
  std::string missed;       // the objective that is missed, as Metrics::missed says it; else empty
  uint64_t num_steps = 0;
  int64_t num_tokens = 0;  // sampled
  int64_t end_us = 0;      // virtual time at the end
  double mean_step_us = 0.0;
  double mean_rows = 0.0;        // of all instances together, over steps
  double straggler_ratio = 0.0;  // slowest instance over the mean, by local time, over steps
  double local_share = 0.0;      // of step time: dense, attention and route of the slowest
  double exchange_share = 0.0;
  double experts_share = 0.0;
  Recording recording;
  std::vector<Refusal> refusals;  // the first few
  uint64_t trace_hash = 0;        // of all plans, see sim/plan_hash.h
};

// Fails where the options contradict each other, the engine makes no progress, or (checks_steps) it
// breaks a promise.
Result<SimulationResult> simulate(const SimulationOptions& options,
                                  std::unique_ptr<scheduler::Policy> policy,
                                  const std::vector<Arrival>& arrivals);

}  // namespace nanocp::sim
