// The seam between host policy and devices: a runner carries a StepPlan out on every instance.
// The engine gets one as an argument; CPU, CUDA and simulated runners implement it.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "base/result.h"
#include "plan/ids.h"
#include "scheduler/step_plan.h"

namespace nanocp::engine {

struct SampledToken {
  SequenceId sequence = 0;
  TokenId token = 0;
  float logprob = 0.0F;                                 // natural log, when asked for
  std::vector<std::pair<TokenId, float>> top_logprobs;  // best first, when asked for
  std::vector<float> logits;  // [vocab], when the runner is told to keep them
};

struct StepResult {
  std::vector<SampledToken> tokens;  // one per sample task, in the plan's order, by instance
  int64_t duration_us = 0;           // slowest instance
};

using StepTicket = uint64_t;

// One thread (the engine's). At most one step is in flight.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  // Starts the step. `plan` and what it points to stay valid until wait() has returned.
  virtual StepTicket launch(const scheduler::StepPlan& plan) = 0;
  // Blocks, with a deadline of the runner's own, until the step is done. An error is final: the
  // instances may disagree, so no further step may be launched.
  virtual Result<StepResult> wait(StepTicket ticket) = 0;
};

}  // namespace nanocp::engine
