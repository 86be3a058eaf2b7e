// Whether a StepPlan is consistent in itself: every row's K/V is written once, every row sees each
// earlier position of its sequence once, send tables, receive counts and slots agree, and the
// plan's counts of work are what its tables add up to. For tests and debug builds; costs rows x
// blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "scheduler/step_plan.h"

namespace nanocp::scheduler {

struct PlanLimits {
  int32_t block_size;
  std::vector<int64_t> num_blocks;  // [num_instances]
  int32_t num_instances_per_domain = 0;
};

// ok, or kInternal with the first thing that is wrong.
Status check_plan(const StepPlan& plan, const PlanLimits& limits);

}  // namespace nanocp::scheduler
