// One step of all instances: the numbers each device needs and the tokens to sample.
// Filled by Scheduler::plan_step, read by runners. Plain data, one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/instance_plan.h"
#include "request/request.h"

namespace nanocp::scheduler {

// The next token of `sequence`, from the logits of the instance's row `row`.
struct SampleTask {
  const request::Sequence* sequence;  // valid until the step has been committed
  int32_t row;                        // own row of the instance
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
  std::vector<InstancePlan> instances;                // [num_instances]
  std::vector<std::vector<SampleTask>> sample_tasks;  // [num_instances], order of sample_rows
  std::vector<ScheduledChunk> chunks;

  bool empty() const { return chunks.empty(); }
};

}  // namespace nanocp::scheduler
