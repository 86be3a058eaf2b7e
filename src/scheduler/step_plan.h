// One step of all instances: the numbers each device needs and the tokens to sample.
// Filled by Scheduler::plan_step, read by runners. Plain data. Items point to lists of blocks that
// the scheduler keeps as long as the plan, samples and tasks to the engine's sequences.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/instance_plan.h"
#include "request/request.h"
#include "scheduler/step_work.h"

namespace nanocp::scheduler {

// The next token of `sequence`, from the logits of the instance's row `row`.
struct SampleTask {
  // Valid until the step is over. A step that is launched behind another one must not read `output`
  // (engine/CONTRACT.md, engine.ahead).
  const request::Sequence* sequence;
  int32_t row;           // own row of the instance
  int32_t output_index;  // of the token to sample, from 0
};

// How likely the token at `position` of the sequence's prompt is, from the logits of the row of the
// token before it.
struct ScoreTask {
  const request::Sequence* sequence;  // valid until the step is over
  int32_t row;                        // own row of the instance
  int32_t position;
};

// Tokens of one sequence whose K/V this step computes.
struct ScheduledChunk {
  SequenceId sequence;
  InstanceId binding;
  int64_t first_position;
  int32_t num_tokens;
  bool samples;  // the chunk ends at the newest token, so a token is sampled
};

struct StepPlan {
  uint64_t step_id = 0;
  int64_t num_rows = 0;  // of all instances
  // Who gets a token, by instance, in the order of its sample tasks.
  std::vector<SamplingSequence> samples;
  std::vector<InstanceWorkCount> work;  // [num_instances]

  // Tables for devices, of all rows. Empty unless asked for (Scheduler::plan_step).
  std::vector<InstancePlan> instances;                // [num_instances]
  std::vector<std::vector<SampleTask>> sample_tasks;  // [num_instances], order of sample_rows
  std::vector<std::vector<ScoreTask>> score_tasks;    // [num_instances], order of score_rows
  std::vector<ScheduledChunk> chunks;

  bool empty() const { return num_rows == 0; }
};

}  // namespace nanocp::scheduler
