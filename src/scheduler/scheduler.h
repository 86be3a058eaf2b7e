// Decides what every instance does in each step: continuous batching, chunked prefill, admission,
// growth and preemption over per-instance block pools. Owned by the engine; one thread, no I/O, no
// clock, deterministic. One step at a time: plan_step, then commit_step or abandon_step. See
// CONTRACT.md.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "request/request.h"
#include "scheduler/options.h"
#include "scheduler/plan_builder.h"
#include "scheduler/policy.h"
#include "scheduler/scheduler_state.h"
#include "scheduler/step_plan.h"
#include "scheduler/step_planner.h"

namespace nanocp::scheduler {

class Scheduler {
 public:
  // Requires: check_options(options).ok().
  Scheduler(SchedulerOptions options, std::unique_ptr<Policy> policy);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Puts a new sequence into the queue, or says why it can never run.
  // Requires: `sequence` outlives its removal, holds no output, and its id is new.
  Status add(request::Sequence* sequence);

  // The next step, with its blocks already taken; empty when nothing can run. Valid until the step
  // has been committed or abandoned. Requires: no step in flight.
  const StepPlan& plan_step();
  // The step in flight has been carried out. For each chunk that samples, the caller appends one
  // token to the sequence or removes it before the next plan_step.
  void commit_step();
  // The step in flight failed: nothing of it counts.
  void abandon_step();

  // Takes a sequence out: finished, cancelled or failed. Blocks are freed at once, or with the
  // commit when the step in flight may still write to them. True when it is gone on return.
  // Requires: the scheduler has it.
  bool remove(SequenceId id, request::FinishReason reason);

  bool is_step_in_flight() const { return in_flight_; }
  bool has_work() const { return !state_.entries.empty(); }
  size_t num_waiting() const { return state_.waiting.size(); }
  size_t num_running() const { return state_.decoding.size() + state_.prefilling.size(); }
  // [num_instances]
  std::span<const InstanceLoad> loads() const { return state_.loads; }
  // Null when the sequence is unknown. Valid until it is removed.
  const kvcache::KvPlacement* placement(SequenceId id) const;
  const SchedulerOptions& options() const { return state_.options; }
  const Policy& policy() const { return *policy_; }

  // Recomputes every counter from the placements and aborts on a difference. O(everything).
  void check_integrity() const;

 private:
  void commit_decision(const StepDecision& decision);
  void commit_truncation(const PlannedTruncation& truncation);
  void commit_admission(const PlannedAdmission& admission);
  void commit_chunk(const PlannedChunk& chunk);
  void advance(const PlannedChunk& chunk);
  void add_cached(Entry& entry, int64_t num_tokens);
  void allocate(Entry& entry, InstanceId holder);
  void release(Entry& entry, const std::vector<kvcache::HeldBlock>& blocks);
  void erase(Entry* entry);
  void check_entry(Entry& entry, std::vector<InstanceLoad>& expected,
                   std::vector<int64_t>& num_waiting_blocks) const;

  SchedulerState state_;
  std::unique_ptr<Policy> policy_;
  StepPlanner planner_;
  PlanBuilder builder_;
  StepPlan plan_;
  std::vector<PlannedChunk> chunks_;  // of the step in flight
  bool in_flight_ = false;
};

}  // namespace nanocp::scheduler
