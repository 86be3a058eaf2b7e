#include "sim/sim_runner.h"

#include <algorithm>
#include <cmath>

namespace nanocp::sim {

using scheduler::InstanceWork;

SimRunner::SimRunner(const scheduler::CostModel& model, int32_t block_size, ManualClock& clock)
    : model_(model), block_size_(block_size), clock_(clock) {}

engine::StepTicket SimRunner::launch(const scheduler::StepPlan& plan) {
  if (on_launch) on_launch(plan);
  Step& step = steps_[num_launched_++ % 2];
  step.work.assign(plan.instances.size(), InstanceWork{});
  step.result = engine::StepResult{};
  for (size_t i = 0; i < plan.instances.size(); ++i) {
    step.work[i].num_rows = plan.instances[i].num_rows();
    for (const AttentionItem& item : plan.instances[i].items) count_item(item, i, step.work);
    for (const scheduler::SampleTask& task : plan.sample_tasks[i]) {
      engine::SampledToken sampled;
      sampled.sequence = task.sequence->id;
      step.result.tokens.push_back(std::move(sampled));
    }
  }
  step.cost = model_.step(step.work);
  return plan.step_id;
}

// Row r of the item sees the shard's tokens at positions up to first_position + r.
void SimRunner::count_item(const AttentionItem& item, size_t holder,
                           std::vector<InstanceWork>& all) const {
  InstanceWork& work = all[holder];
  work.num_attended_rows += item.num_rows;
  const int64_t last_position = item.first_position + item.num_rows - 1;
  const auto num_blocks = static_cast<int64_t>(item.blocks.size());
  int64_t num_tokens = num_blocks * block_size_;
  const bool has_tail = num_blocks > 0 && item.block_idx.back() == last_position / block_size_;
  if (has_tail) num_tokens -= block_size_ - 1 - last_position % block_size_;
  int64_t num_window_tokens = 0;
  if (model_.shape.num_window_layers > 0) {
    const int64_t first_seen = std::max<int64_t>(0, last_position + 1 - model_.shape.window_tokens);
    for (int64_t i = num_blocks - 1; i >= 0; --i) {
      const int64_t begin = int64_t{item.block_idx[static_cast<size_t>(i)]} * block_size_;
      const int64_t end = std::min(begin + block_size_, last_position + 1);
      if (end <= first_seen) break;
      num_window_tokens += end - std::max(begin, first_seen);
    }
  }
  if (item.num_rows == 1) {
    work.num_kv_tokens += num_tokens;
    work.num_window_tokens += num_window_tokens;
  } else {
    // On average a row of the chunk does not see the half of its own chunk that is stored here.
    const int64_t own = has_tail ? std::min<int64_t>(num_tokens, item.num_rows) : 0;
    work.num_pairs += item.num_rows * num_tokens - own * item.num_rows / 2;
    work.num_window_pairs += item.num_rows * std::min<int64_t>(num_tokens, num_window_tokens);
  }
  const auto binding = static_cast<size_t>(item.source);
  if (binding == holder) return;
  InstanceWork& home = all[binding];
  const int32_t per_domain = model_.shape.num_instances_per_domain;
  const bool is_near =
      static_cast<int32_t>(binding) / per_domain == static_cast<int32_t>(holder) / per_domain;
  home.is_split_near |= is_near;
  work.is_split_near |= is_near;
  home.is_split_far |= !is_near;
  work.is_split_far |= !is_near;
  (is_near ? home.near_bytes : home.far_bytes) += item.num_rows * model_.shape.query_bytes;
  (is_near ? work.near_bytes : work.far_bytes) += item.num_rows * model_.shape.partial_bytes;
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
