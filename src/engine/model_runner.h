// The seam between host policy and devices: a runner carries a StepPlan out on every instance.
// The engine gets one as an argument; CPU, CUDA and simulated runners implement it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "plan/ids.h"
#include "plan/step_phase.h"
#include "plan/token_score.h"
#include "scheduler/step_plan.h"

namespace nanocp::engine {

// What a token carries for those who ask.
struct TokenDetails {
  std::vector<std::pair<TokenId, float>> top_logprobs;  // best first, when asked for
  // With the first token of a request that asks for them: of prompt tokens 1, 2, ...
  std::vector<TokenScore> prompt_scores;
  std::vector<float> logits;  // [vocab], when the runner is told to keep them
};

// None of them for most tokens, which stay small that way: there are thousands in a step.
class OptionalDetails {
 public:
  // Made when there are none.
  TokenDetails& make() {
    if (details_ == nullptr) details_ = std::make_unique<TokenDetails>();
    return *details_;
  }
  // Empty ones when there are none.
  TokenDetails take() { return details_ == nullptr ? TokenDetails{} : std::move(*details_); }
  std::span<const float> logits() const {
    return details_ == nullptr ? std::span<const float>() : details_->logits;
  }

 private:
  std::unique_ptr<TokenDetails> details_;
};

struct SampledToken {
  SequenceId sequence = 0;
  TokenId token = 0;
  float logprob = 0.0F;  // natural log, when asked for
  OptionalDetails details;
};

// Of a score task.
struct ScoredToken {
  SequenceId sequence = 0;
  int32_t position = 0;  // in the prompt
  TokenScore score;
};

using Phase = StepPhase;
constexpr int kNumPhases = kNumStepPhases;

// A piece of a step on one instance; times count from the step's start there.
struct PhaseSpan {
  Phase phase;
  int32_t layer;  // -1 outside of layers
  double start_us;
  double duration_us;
};

struct StepResult {
  std::vector<SampledToken> tokens;  // one per sample task, in the plan's order, by instance
  std::vector<ScoredToken> scored;   // one per score task, in any order
  int64_t duration_us = 0;           // slowest instance
  // [num_instances], in order of time; empty unless the runner profiles.
  std::vector<std::vector<PhaseSpan>> spans;
  // [num_instances] device time between the end of the step before and the start of this one; empty
  // unless the runner times it.
  std::vector<double> idle_us;
};

using StepTicket = uint64_t;

// One thread (the engine's). At most one step is in flight, or two when the runner runs ahead. See
// CONTRACT.md, engine.ahead.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;
  // Starts the step, or puts it behind the one in flight. `plan` and what it points to stay valid
  // until wait() has returned.
  virtual StepTicket launch(const scheduler::StepPlan& plan) = 0;
  // Blocks, with a deadline of the runner's own, until the step is done. Called once for each
  // launched step, in their order. An error is final: the instances may disagree, so no further
  // step may be launched, and the wait for one that is in flight already fails as well.
  virtual Result<StepResult> wait(StepTicket ticket) = 0;

  // Whether launch() reads the tables of a plan (instances, sample_tasks, chunks); what else there
  // is tells how much work the step is and who gets tokens. Constant.
  virtual bool reads_tables() const { return true; }
  // Whether the engine shall plan a step while the one before it is in flight. Constant.
  // Requires: reads_tables().
  virtual bool runs_ahead() const { return false; }
  // Whether `next` may be launched behind the step in flight, so that its unread tokens are taken
  // where that step samples them. If not it is launched after that step, with all tokens known.
  virtual bool can_launch_ahead(const scheduler::StepPlan& /*next*/) const { return false; }
};

}  // namespace nanocp::engine
