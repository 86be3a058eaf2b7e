#include "sim/step_checker.h"

#include <algorithm>
#include <string>

#include "scheduler/check_plan.h"

namespace nanocp::sim {
namespace {

Error broken(SequenceId id, const std::string& what) {
  return {ErrorCode::kInternal, "sequence " + std::to_string(id) + " " + what};
}

}  // namespace

void StepChecker::add(SequenceId id) {
  const request::Sequence& sequence = *engine_.sequence(id);
  const Seniority seniority = {sequence.request.priority, id};
  seniority_of_.emplace(id, seniority);
  open_.emplace(seniority, Open{.num_rows_max = sequence.max_cached_tokens()});
  num_rows_max_ = std::max(num_rows_max_, sequence.max_cached_tokens());
}

void StepChecker::cancel(SequenceId id) {
  const auto found = seniority_of_.find(id);
  open_.erase(found->second);
  seniority_of_.erase(found);
}

Status StepChecker::check_plan(const scheduler::StepPlan& plan) const {
  const scheduler::SchedulerOptions& options = engine_.scheduler().options();
  return scheduler::check_plan(
      plan, {options.block_size, options.num_blocks, options.num_instances_per_domain});
}

const request::Sequence* StepChecker::find(SequenceId id) const {
  const request::Sequence* sequence = engine_.sequence(id);
  const bool is_open =
      sequence != nullptr && sequence->status != request::SequenceStatus::kFinished;
  return is_open ? sequence : nullptr;
}

Status StepChecker::check_step(std::span<const engine::TokenEvent> events) {
  engine_.scheduler().check_integrity();
  for (const engine::TokenEvent& event : events) {
    if (!seniority_of_.contains(event.sequence)) return broken(event.sequence, "is not open");
  }
  NANOCP_RETURN_IF_ERROR(check_overtakes());
  NANOCP_RETURN_IF_ERROR(check_decoding());
  NANOCP_RETURN_IF_ERROR(check_most_senior());
  for (const engine::TokenEvent& event : events) {
    if (event.summary) cancel(event.sequence);
  }
  return ok_status();
}

// From the least senior on, so that those that pass are counted before those that they pass. Who
// came to the queue within the step was not passed by those who left it in the same step.
Status StepChecker::check_overtakes() {
  int32_t num_admitted = 0;
  // NOLINTNEXTLINE(modernize-loop-convert): in reverse
  for (auto it = open_.rbegin(); it != open_.rend(); ++it) {
    auto& [seniority, open] = *it;
    const request::Sequence* sequence = find(seniority.second);
    const bool was_waiting = open.is_waiting;
    open.is_waiting = sequence != nullptr && sequence->status == request::SequenceStatus::kWaiting;
    if (was_waiting && open.is_waiting) {
      open.num_passed += num_admitted;
    } else {
      open.num_passed = 0;
      num_admitted += was_waiting ? 1 : 0;
    }
    const int32_t num_passed_max = engine_.scheduler().options().max_overtakes;
    if (open.num_passed > num_passed_max) {
      return broken(seniority.second, "was passed " + std::to_string(open.num_passed) +
                                          " times, max_overtakes is " +
                                          std::to_string(num_passed_max));
    }
  }
  return ok_status();
}

// Who decodes has a row in every step until it is preempted. A sequence that comes back from
// preemption decodes once it samples again, not when a chunk happens to leave a single token.
Status StepChecker::check_decoding() {
  for (auto& [seniority, open] : open_) {
    const request::Sequence* sequence = find(seniority.second);
    if (sequence == nullptr) continue;
    const bool has_gone_on = open.is_decoding && sequence->num_preemptions == open.num_preemptions;
    if (has_gone_on && sequence->num_cached_tokens <= open.num_cached) {
      return broken(seniority.second, "decodes and had no row in a step");
    }
    const bool has_sampled = sequence->num_outputs() > open.num_outputs;
    open.is_decoding = !open.is_waiting && sequence->is_decoding() && has_sampled;
    open.num_outputs = sequence->num_outputs();
    open.num_cached = sequence->num_cached_tokens;
    open.num_preemptions = sequence->num_preemptions;
  }
  return ok_status();
}

// While it waits each step computes a row of a sequence that runs, and no more than max_overtakes
// can join those.
int64_t StepChecker::waiting_steps_max() const {
  int64_t num_rows = engine_.scheduler().options().max_overtakes * num_rows_max_;
  for (const auto& [seniority, open] : open_) {
    const request::Sequence* sequence = find(seniority.second);
    if (sequence == nullptr || open.is_waiting) continue;
    num_rows += open.num_rows_max - sequence->num_cached_tokens;
  }
  return num_rows;
}

Status StepChecker::check_most_senior() {
  const auto found = std::find_if(open_.begin(), open_.end(), [this](const auto& entry) {
    return find(entry.first.second) != nullptr;
  });
  if (found == open_.end()) {
    senior_ = 0;
    return ok_status();
  }
  // Who is gone since may have been more senior in this step.
  const bool is_alone = found == open_.begin();
  const SequenceId id = found->first.second;
  const bool is_waiting = found->second.is_waiting;
  const int64_t num_cached = find(id)->num_cached_tokens;
  if (id == senior_ && is_alone) {
    NANOCP_RETURN_IF_ERROR(check_progress(id, is_waiting, num_cached));
  } else {
    num_steps_waited_ = 0;
    num_steps_waited_max_ = waiting_steps_max();
  }
  senior_ = id;
  senior_is_waiting_ = is_waiting;
  senior_cached_ = num_cached;
  return ok_status();
}

// Of the request that was and is the most senior.
Status StepChecker::check_progress(SequenceId id, bool is_waiting, int64_t num_cached) {
  const std::string counts = " (" + std::to_string(senior_cached_) + " tokens cached, " +
                             std::to_string(num_cached) + " now)";
  if (num_cached < senior_cached_) return broken(id, "is the most senior and lost K/V" + counts);
  if (!senior_is_waiting_ && (is_waiting || num_cached == senior_cached_)) {
    return broken(id, "is the most senior and made no progress in a step" + counts);
  }
  if (is_waiting && ++num_steps_waited_ > num_steps_waited_max_) {
    return broken(id, "is the most senior and waits for more than " +
                          std::to_string(num_steps_waited_max_) + " steps");
  }
  return ok_status();
}

Status StepChecker::check_end() const {
  engine_.scheduler().check_integrity();
  for (const scheduler::InstanceLoad& load : engine_.loads()) {
    const bool is_empty = load.num_free_blocks == load.num_blocks && load.num_kv_tokens == 0 &&
                          load.num_sequences == 0;
    if (is_empty) continue;
    return Error{ErrorCode::kInternal, std::to_string(load.num_used_blocks()) +
                                           " blocks are still in use when all requests are over"};
  }
  if (open_.empty()) return ok_status();
  return broken(open_.begin()->first.second, "never ended");
}

}  // namespace nanocp::sim
