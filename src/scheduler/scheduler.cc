#include "scheduler/scheduler.h"

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "base/check.h"
#include "scheduler/check_plan.h"

namespace nanocp::scheduler {

using request::FinishReason;
using request::SequenceStatus;

namespace {

SchedulerOptions checked(SchedulerOptions options) {
  NANOCP_CHECK(check_options(options).ok());
  return options;
}

}  // namespace

Scheduler::Scheduler(SchedulerOptions options, std::unique_ptr<Policy> policy)
    : state_(checked(std::move(options)), policy->binding_moves()),
      policy_(std::move(policy)),
      planner_(state_, *policy_),
      builder_(state_.options.block_size),
      smallest_pool_(
          *std::min_element(state_.options.num_blocks.begin(), state_.options.num_blocks.end())) {}

Status Scheduler::add(request::Sequence* sequence) {
  NANOCP_CHECK(state_.entries.find(sequence->id) == nullptr);
  NANOCP_CHECK(sequence->output.empty() && sequence->num_cached_tokens == 0);
  if (sequence->request.prompt.empty()) {
    return invalid_argument("prompt is empty: give at least one token");
  }
  if (sequence->request.max_tokens < 1) {
    return invalid_argument("max_tokens is " + std::to_string(sequence->request.max_tokens) +
                            ", it must be at least 1");
  }
  const int64_t max_tokens = sequence->max_cached_tokens();
  if (max_tokens > std::numeric_limits<int32_t>::max()) {
    return invalid_argument("prompt and max_tokens make " + std::to_string(max_tokens) +
                            " tokens, positions must stay below 2^31");
  }
  const int32_t block_size = state_.options.block_size;
  RequestShape shape;
  shape.num_prompt_tokens = sequence->num_prompt_tokens();
  shape.num_tokens = sequence->num_tokens();
  shape.max_blocks = kvcache::blocks_for(max_tokens, block_size);
  // What fits on any instance is not asked about.
  const int64_t most = shape.max_blocks <= smallest_pool_
                           ? smallest_pool_
                           : policy_->max_request_blocks(state_.options.num_blocks, shape);
  if (shape.max_blocks > most) {
    return resource_exhausted(
        "prompt of " + std::to_string(shape.num_prompt_tokens) + " tokens with max_tokens " +
        std::to_string(sequence->request.max_tokens) + " needs " + std::to_string(max_tokens) +
        " KV tokens, policy " + std::string(policy_->name()) + " can hold " +
        std::to_string(most * block_size) +
        ": shorten it, lower max_tokens, or give the KV cache more memory");
  }
  sequence->status = SequenceStatus::kWaiting;
  state_.waiting.insert(&state_.entries.add(sequence, state_.num_added++, shape.max_blocks));
  return ok_status();
}

StepPlan& Scheduler::plan_step(PlanTables tables) {
  NANOCP_CHECK(!awaits_commit_);
  // The last step's plan stays, the one before it has no reader any more.
  if (!plans_[num_steps_ % plans_.size()].empty()) state_.retired.free_older();
  const StepDecision* decision = &planner_.plan();
  commit_decision(*decision);
  if (!decision->has_rows() && (decision->preempted || decision->synthesized)) {
    // Everybody gave way to somebody in the queue, who is let in now; or nobody else runs yet and
    // those admitted with synthetic K/V get their first rows.
    decision = &planner_.plan();
    commit_decision(*decision);
  }
  chunks_ = decision->chunks;
  StepPlan& plan = plans_[num_steps_ % plans_.size()];
  fill(plan);
  if (tables == PlanTables::kBuilt) {
    builder_.build(state_.decoding, chunks_, state_.options.num_instances(), plan);
  }
  awaits_commit_ = !plan.empty();
  if (!plan.empty()) plan.step_id = ++num_steps_;
#ifndef NDEBUG
  if (tables == PlanTables::kBuilt) {
    const Status checked =
        check_plan(plan, {.block_size = state_.options.block_size,
                          .num_blocks = state_.options.num_blocks,
                          .num_instances_per_domain = state_.options.num_instances_per_domain});
    if (!checked.ok()) check_failed(__FILE__, __LINE__, checked.error().message);
  }
#endif
  return plan;
}

// All but the tables.
void Scheduler::fill(StepPlan& plan) {
  const auto num_instances = static_cast<size_t>(state_.options.num_instances());
  plan.num_rows = static_cast<int64_t>(state_.decoding.size());
  plan.work.assign(num_instances, InstanceWorkCount{});
  state_.decoding.add_work(plan.work);
  sampling_.clear();
  for (const PlannedChunk& chunk : chunks_) {
    const request::Sequence& sequence = *chunk.entry->sequence;
    plan.num_rows += chunk.num_tokens;
    add_chunk_work(chunk.entry->placement, chunk.binding,
                   {static_cast<int32_t>(sequence.num_cached_tokens), chunk.num_tokens},
                   state_.domains(), plan.work);
    if (chunk.entry->num_pending_tokens() == chunk.num_tokens) sampling_.push_back(chunk);
  }
  std::stable_sort(
      sampling_.begin(), sampling_.end(),
      [](const PlannedChunk& a, const PlannedChunk& b) { return a.binding < b.binding; });
  plan.samples.clear();
  auto next = sampling_.begin();
  for (InstanceId i = 0; i < state_.options.num_instances(); ++i) {
    const auto decoding = state_.decoding.sequences(i);
    plan.samples.insert(plan.samples.end(), decoding.begin(), decoding.end());
    for (; next != sampling_.end() && next->binding == i; ++next) {
      plan.samples.push_back({next->entry->sequence, next->entry->id()});
    }
  }
}

void Scheduler::commit_decision(const StepDecision& decision) {
  for (const PlannedTruncation& truncation : decision.truncations) commit_truncation(truncation);
  for (const PlannedGrowth& growth : decision.growths) grow(*growth.entry, growth.holder);
  for (const PlannedAdmission& admission : decision.admissions) commit_admission(admission);
  for (const PlannedOvertake& overtake : decision.overtakes) {
    overtake.entry->num_overtaken += overtake.count;
  }
  for (const PlannedMove& move : decision.moves) rebind(*move.entry, move.binding);
  state_.decoding.enter_blocks();
  for (size_t i = 0; i < state_.loads.size(); ++i) {
    state_.loads[i].num_rows = state_.decoding.num_rows(static_cast<InstanceId>(i));
  }
  for (const PlannedChunk& chunk : decision.chunks) commit_chunk(chunk);
  for (size_t i = 0; i < state_.loads.size(); ++i) {
    NANOCP_CHECK_EQ(state_.loads[i].num_free_blocks, decision.loads[i].num_free_blocks);
    NANOCP_CHECK_EQ(state_.loads[i].num_sequences, decision.loads[i].num_sequences);
    NANOCP_CHECK_EQ(state_.loads[i].num_rows, decision.loads[i].num_rows);
  }
}

void Scheduler::commit_truncation(const PlannedTruncation& truncation) {
  Entry& entry = *truncation.entry;
  request::Sequence& sequence = *entry.sequence;
  if (truncation.was_running) {
    stop(entry);
    for (int64_t i = 0; i < entry.placement.num_blocks(); ++i) {
      ++state_.num_waiting_blocks[static_cast<size_t>(entry.placement.block(i).holder)];
    }
    sequence.status = SequenceStatus::kWaiting;
    sequence.binding = kNoInstance;
    ++sequence.num_preemptions;
    state_.waiting.insert(&entry);
  }
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    state_.loads[static_cast<size_t>(shard.holder)].num_kv_tokens -= shard.num_tokens;
  }
  const auto dropped = entry.placement.truncate_blocks(truncation.num_kept);
  if (truncation.num_kept == 0) entry.placement.clear();  // empty shards, too
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    state_.loads[static_cast<size_t>(shard.holder)].num_kv_tokens += shard.num_tokens;
  }
  for (const kvcache::HeldBlock& held : dropped) {
    --state_.num_waiting_blocks[static_cast<size_t>(held.holder)];
  }
  for (const kvcache::HeldBlock& held : dropped) release(entry, held);
  sequence.num_cached_tokens = entry.placement.num_tokens();
  if (entry.placement.num_blocks() == 0) state_.holders.erase(&entry);
}

void Scheduler::commit_admission(const PlannedAdmission& admission) {
  Entry& entry = *admission.entry;
  for (int64_t i = 0; i < entry.placement.num_blocks(); ++i) {
    --state_.num_waiting_blocks[static_cast<size_t>(entry.placement.block(i).holder)];
  }
  for (const BlockSpan& span : admission.decision.spans) {
    const auto holder = static_cast<size_t>(span.holder);
    state_.pools[holder].allocate(entry.id(), span.num_blocks, new_blocks_);
    state_.loads[holder].num_free_blocks -= span.num_blocks;
    entry.placement.append_blocks(span.holder, new_blocks_);
  }
  state_.waiting.erase(&entry);
  state_.holders.insert(&entry);
  entry.sequence->status = SequenceStatus::kRunning;
  entry.sequence->binding = admission.decision.binding;
  ++state_.loads[static_cast<size_t>(admission.decision.binding)].num_sequences;
  state_.prefilling.insert(&entry);
  state_.forecast.enter(entry);
  ++state_.num_admissions;
  if (entry.sequence->awaits_synthetic_kv()) {
    add_cached(entry, entry.sequence->num_prompt_tokens() - 1);
  }
}

void Scheduler::commit_chunk(const PlannedChunk& chunk) {
  rebind(*chunk.entry, chunk.binding);
  state_.loads[static_cast<size_t>(chunk.binding)].num_rows += chunk.num_tokens;
}

void Scheduler::rebind(Entry& entry, InstanceId binding) {
  request::Sequence& sequence = *entry.sequence;
  if (sequence.binding == binding) return;
  --state_.loads[static_cast<size_t>(sequence.binding)].num_sequences;
  ++state_.loads[static_cast<size_t>(binding)].num_sequences;
  if (entry.is_decoding()) {
    state_.decoding.move(&entry, binding);
  } else {
    sequence.binding = binding;
  }
}

// Running no more; its counters are up to date then.
void Scheduler::stop(Entry& entry) {
  state_.forecast.leave(entry);
  --state_.loads[static_cast<size_t>(entry.sequence->binding)].num_sequences;
  if (entry.is_decoding()) {
    state_.decoding.leave(&entry);
  } else {
    state_.prefilling.erase(&entry);
  }
}

void Scheduler::grow(Entry& entry, InstanceId holder) {
  const auto i = static_cast<size_t>(holder);
  --state_.loads[i].num_free_blocks;
  state_.forecast.leave(entry);
  state_.decoding.append_block(&entry, {holder, state_.pools[i].allocate(entry.id())});
  state_.forecast.enter(entry);
}

void Scheduler::release(const Entry& entry, const kvcache::HeldBlock& held) {
  const auto i = static_cast<size_t>(held.holder);
  state_.pools[i].free(held.block, entry.id());
  ++state_.loads[i].num_free_blocks;
}

void Scheduler::commit_step() {
  NANOCP_CHECK(awaits_commit_);
  awaits_commit_ = false;
  state_.decoding.advance(state_.loads);
  for (const PlannedChunk& chunk : chunks_) advance(chunk);
  chunks_.clear();
}

void Scheduler::advance(const PlannedChunk& chunk) {
  Entry& entry = *chunk.entry;
  add_cached(entry, chunk.num_tokens);
  // Once a token has been sampled, it is the only one without K/V.
  if (entry.num_pending_tokens() > 0) return;
  state_.prefilling.erase(&entry);
  state_.decoding.join(&entry);
}

// The next `num_tokens` positions have their K/V, charged to the instances that hold them.
void Scheduler::add_cached(Entry& entry, int64_t num_tokens) {
  entry.placement.visit_range(entry.sequence->num_cached_tokens, num_tokens,
                              [this](InstanceId holder, int64_t count) {
                                state_.loads[static_cast<size_t>(holder)].num_kv_tokens += count;
                              });
  entry.placement.advance(num_tokens);
  entry.sequence->num_cached_tokens += num_tokens;
}

void Scheduler::remove(SequenceId id, FinishReason reason) {
  NANOCP_CHECK(!awaits_commit_);
  Entry* entry = state_.entries.find(id);
  NANOCP_CHECK(entry != nullptr);
  for (int64_t i = 0; i < entry->placement.num_blocks(); ++i) {
    const kvcache::HeldBlock& held = entry->placement.block(i);
    state_.pools[static_cast<size_t>(held.holder)].prefetch_free(held.block);
  }
  request::Sequence& sequence = *entry->sequence;
  sequence.finish_reason = reason;
  if (entry->is_running()) {
    stop(*entry);
  } else {
    state_.waiting.erase(entry);
    for (int64_t i = 0; i < entry->placement.num_blocks(); ++i) {
      --state_.num_waiting_blocks[static_cast<size_t>(entry->placement.block(i).holder)];
    }
  }
  for (const kvcache::Shard& shard : entry->placement.shards()) {
    state_.loads[static_cast<size_t>(shard.holder)].num_kv_tokens -= shard.num_tokens;
  }
  state_.forecast.end(*entry);
  state_.holders.erase(entry);
  for (int64_t i = entry->placement.num_blocks() - 1; i >= 0; --i) {
    release(*entry, entry->placement.block(i));
  }
  entry->placement.clear();
  sequence.num_cached_tokens = 0;
  sequence.status = SequenceStatus::kFinished;
  state_.entries.erase(*entry);
}

const kvcache::KvPlacement* Scheduler::placement(SequenceId id) const {
  Entry* entry = state_.entries.find(id);
  if (entry == nullptr) return nullptr;
  if (entry->is_decoding()) state_.decoding.settle(*entry);
  return &entry->placement;
}

}  // namespace nanocp::scheduler
