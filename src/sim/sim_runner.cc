#include "sim/sim_runner.h"

#include <algorithm>
#include <cmath>

namespace nanocp::sim {

using scheduler::InstanceWork;

SimRunner::SimRunner(const scheduler::CostModel& model, int32_t block_size, bool is_ideal,
                     ManualClock& clock)
    : model_(model), block_size_(block_size), is_ideal_(is_ideal), clock_(clock) {}

engine::StepTicket SimRunner::launch(const scheduler::StepPlan& plan) {
  if (on_launch) on_launch(plan);
  Step& step = steps_[num_launched_++ % 2];
  step.work.assign(plan.work.size(), InstanceWork{});
  for (size_t i = 0; i < plan.work.size(); ++i) step.work[i] = weigh(plan.work[i]);
  const bool has_windows = model_.shape.num_window_layers > 0;
  for (size_t i = 0; i < plan.instances.size() && has_windows; ++i) {
    for (const AttentionItem& item : plan.instances[i].items) count_window(item, step.work[i]);
  }
  step.result = engine::StepResult{};
  step.result.tokens.resize(plan.samples.size());
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    step.result.tokens[i].sequence = plan.samples[i].id;
  }
  step.cost = is_ideal_ ? model_.ideal_step(step.work) : model_.step(step.work);
  return plan.step_id;
}

InstanceWork SimRunner::weigh(const scheduler::InstanceWorkCount& count) const {
  const scheduler::RouteCount& routes = count.routes;
  const double query_bytes = model_.shape.query_bytes;
  const double partial_bytes = model_.shape.partial_bytes;
  return {.num_rows = count.num_rows,
          .num_attended_rows = count.num_attended_rows,
          .num_kv_tokens = count.num_kv_tokens,
          .num_pairs = count.num_pairs,
          .near_bytes = routes.near_queries * query_bytes + routes.near_partials * partial_bytes,
          .far_bytes = routes.far_queries * query_bytes + routes.far_partials * partial_bytes,
          .is_split_near = routes.near_queries + routes.near_partials > 0,
          .is_split_far = routes.far_queries + routes.far_partials > 0};
}

// What window layers see depends on where each row stands.
void SimRunner::count_window(const AttentionItem& item, InstanceWork& work) const {
  const int64_t last_position = item.first_position + item.num_rows - 1;
  const int64_t first_seen = std::max<int64_t>(0, last_position + 1 - model_.shape.window_tokens);
  int64_t num_tokens = 0;
  // NOLINTNEXTLINE(modernize-loop-convert): in reverse
  for (auto idx = item.block_idx.rbegin(); idx != item.block_idx.rend(); ++idx) {
    const int64_t begin = int64_t{*idx} * block_size_;
    const int64_t end = std::min(begin + block_size_, last_position + 1);
    if (end <= first_seen) break;
    num_tokens += end - std::max(begin, first_seen);
  }
  if (item.num_rows == 1) {
    work.num_window_tokens += num_tokens;
  } else {
    work.num_window_pairs += item.num_rows * num_tokens;
  }
}

Result<engine::StepResult> SimRunner::wait(engine::StepTicket /*ticket*/) {
  constexpr int64_t kNsPerUs = 1000;
  Step& step = steps_[num_waited_++ % 2];
  const int64_t step_ns = std::llround(step.cost.step_us * kNsPerUs) + remainder_ns_;
  remainder_ns_ = step_ns % kNsPerUs;
  clock_.advance_us(step_ns / kNsPerUs);
  step.result.duration_us = step_ns / kNsPerUs;
  return std::move(step.result);
}

}  // namespace nanocp::sim
