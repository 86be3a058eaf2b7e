// Decides what every instance does in each step: continuous batching, chunked prefill, admission,
// growth and preemption over per-instance block pools. Owned by the engine; one thread, no I/O, no
// clock, deterministic. One step at a time: plan_step, then commit_step. See CONTRACT.md.
#pragma once

#include <array>
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

// Whether a plan has the tables that devices read.
enum class PlanTables { kNone, kBuilt };

class Scheduler {
 public:
  // Requires: check_options(options).ok().
  Scheduler(SchedulerOptions options, std::unique_ptr<Policy> policy);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Puts a new sequence into the queue, or says why it can never run.
  // Requires: `sequence` outlives its removal, holds no output, and its id is new.
  Status add(request::Sequence* sequence);

  // The next step, with its blocks already taken; empty when nothing can run. Without tables the
  // cost is that of what has changed, not of all rows. The plan stays as it
  // is until the step after it has been planned and yet another one is asked for, so that a step
  // can be planned while the one before is carried out; the caller may only fill in unread tokens.
  // Requires: the last plan, unless empty, has been committed.
  StepPlan& plan_step(PlanTables tables = PlanTables::kBuilt);
  // From now on the planned step counts as carried out, whether devices have run it or not: steps
  // take effect on the caches in the order of their plans. For each chunk that samples, the caller
  // appends one token to the sequence, counts it as unread, or removes the sequence before the next
  // plan_step.
  void commit_step();

  // Takes a sequence out: finished, cancelled or failed. Its blocks are free for later plans at
  // once. Requires: the scheduler has it, and no plan waits for its commit.
  void remove(SequenceId id, request::FinishReason reason);

  bool has_work() const { return !state_.entries.empty(); }
  size_t num_waiting() const { return state_.waiting.size(); }
  size_t num_running() const { return state_.decoding.size() + state_.prefilling.size(); }
  // [num_instances]
  std::span<const InstanceLoad> loads() const { return state_.loads; }
  // Null when the sequence is unknown. Valid until it is removed, up to date until the next commit.
  const kvcache::KvPlacement* placement(SequenceId id) const;
  const SchedulerOptions& options() const { return state_.options; }
  const Policy& policy() const { return *policy_; }

  // Recomputes every counter from the placements and aborts on a difference. Brings
  // num_cached_tokens and placements of all sequences up to date. O(everything).
  void check_integrity() const;

 private:
  void commit_decision(const StepDecision& decision);
  void commit_truncation(const PlannedTruncation& truncation);
  void commit_admission(const PlannedAdmission& admission);
  void commit_chunk(const PlannedChunk& chunk);
  void rebind(Entry& entry, InstanceId binding);
  void stop(Entry& entry);
  void fill(StepPlan& plan);
  void advance(const PlannedChunk& chunk);
  void add_cached(Entry& entry, int64_t num_tokens);
  void grow(Entry& entry, InstanceId holder);
  void release(const Entry& entry, const kvcache::HeldBlock& held);
  void check_entry(Entry& entry, std::vector<InstanceLoad>& expected,
                   std::vector<int64_t>& num_waiting_blocks) const;

  SchedulerState state_;
  std::unique_ptr<Policy> policy_;
  StepPlanner planner_;
  PlanBuilder builder_;
  const int64_t smallest_pool_;         // blocks
  std::array<StepPlan, 2> plans_;       // of the last two steps
  uint64_t num_steps_ = 0;              // planned so far, without empty ones
  bool awaits_commit_ = false;          // the last plan
  std::vector<PlannedChunk> chunks_;    // of it
  std::vector<BlockId> new_blocks_;     // scratch
  std::vector<PlannedChunk> sampling_;  // scratch: those of them that sample, by instance
};

}  // namespace nanocp::scheduler
