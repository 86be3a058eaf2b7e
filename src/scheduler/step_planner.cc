#include "scheduler/step_planner.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

#include "base/check.h"
#include "base/prefetch.h"

namespace nanocp::scheduler {

void StepDecision::reset() {
  truncations.clear();
  growths.clear();
  admissions.clear();
  moves.clear();
  chunks.clear();
  overtakes.clear();
  preempted = false;
  synthesized = false;
}

StepPlanner::StepPlanner(const SchedulerState& state, const Policy& policy)
    : state_(state), policy_(policy), admission_index_(policy.make_admission_index()) {
  for (const int64_t num_blocks : state.options.num_blocks) {
    num_reserved_.push_back(
        static_cast<int64_t>(std::ceil(state.options.watermark * static_cast<double>(num_blocks))));
  }
}

const StepDecision& StepPlanner::plan() {
  decision_.reset();
  decision_.loads = state_.loads;
  for (size_t i = 0; i < decision_.loads.size(); ++i) {
    decision_.loads[i].num_rows = state_.decoding.num_rows(static_cast<InstanceId>(i));
    decision_.loads[i].routes = state_.decoding.routes(static_cast<InstanceId>(i));
  }
  decision_.num_decode_rows = state_.decoding.size();
  for (const Entry* entry : state_.prefilling.slots()) {
    if (entry != nullptr) charge_routes(*entry, entry->sequence->binding, +1);
  }
  num_waiting_blocks_ = state_.num_waiting_blocks;
  is_short_.assign(state_.loads.size(), false);
  num_running_ = static_cast<int32_t>(state_.decoding.size() + state_.prefilling.size());
  admission_loads_.clear();
  newcomers_.assign(state_.loads.size(), {});

  plan_growth();
  plan_moves();
  plan_prefilling();
  plan_admissions();

  for (const PlannedTruncation& truncation : decision_.truncations) {
    truncation.entry->truncation_idx = -1;
  }
  return decision_;
}

ClusterView StepPlanner::view_of(const std::vector<InstanceLoad>& loads) const {
  return {.instances = loads,
          .block_size = state_.options.block_size,
          .num_admissions = state_.num_admissions + decision_.admissions.size(),
          .num_instances_per_domain = state_.options.num_instances_per_domain};
}

RequestShape StepPlanner::shape_of(const Entry& entry, int64_t num_new_blocks) const {
  return {.num_prompt_tokens = entry.sequence->num_prompt_tokens(),
          .num_tokens = entry.sequence->num_tokens(),
          .num_new_blocks = num_new_blocks,
          .max_blocks = entry.max_blocks,
          .placement = &entry.placement};
}

// Victims are younger than the needy one, so none of them has grown yet.
void StepPlanner::plan_growth() {
  growing_.clear();
  for (Entry* entry : state_.decoding.due()) {
    if (state_.decoding.position(*entry) >= entry->placement.capacity_tokens()) {
      growing_.push_back(entry);
    }
  }
  std::sort(growing_.begin(), growing_.end(), BySeniority());
  for (Entry* entry : growing_) {
    if (!is_planned_away(entry) && !try_grow(entry)) preempt(entry);
  }
}

namespace {

// Entries lie apart, and so do their shards: those a few places ahead are fetched by now.
void prefetch_movable(std::span<Entry* const> movable, size_t i) {
  constexpr size_t kEntryAhead = 8;
  constexpr size_t kShardsAhead = 4;
  const auto at = [&](size_t ahead) {
    return i + ahead < movable.size() ? movable[i + ahead] : nullptr;
  };
  if (const Entry* entry = at(kEntryAhead); entry != nullptr) {
    prefetch(entry);
    prefetch(&entry->truncation_idx);
  }
  if (const Entry* entry = at(kShardsAhead); entry != nullptr) {
    prefetch(&entry->sequence->binding);
    const auto shards = std::as_bytes(entry->placement.shards());
    constexpr size_t kLine = 64;
    for (size_t offset = 0; offset < shards.size(); offset += kLine) {
      prefetch(shards.data() + offset);
    }
  }
}

}  // namespace

void StepPlanner::plan_moves() {
  const auto movable = state_.decoding.movable().slots();
  for (size_t i = 0; i < movable.size(); ++i) {
    prefetch_movable(movable, i);
    Entry* entry = movable[i];
    if (entry == nullptr || is_planned_away(entry)) continue;
    const InstanceId current = entry->sequence->binding;
    // Its own row is not in its way.
    --decision_.loads[static_cast<size_t>(current)].num_rows;
    const InstanceId binding = choose_binding(*entry, 1);
    ++decision_.loads[static_cast<size_t>(binding)].num_rows;
    if (binding != current) decision_.moves.push_back({entry, binding});
  }
}

void StepPlanner::plan_prefilling() {
  for (Entry* entry : state_.prefilling.slots()) {
    if (entry == nullptr || is_planned_away(entry)) continue;
    const InstanceId binding = choose_binding(*entry, entry->num_pending_tokens());
    if (view().at(binding).num_rows_left() > 0) schedule(entry, binding);
  }
}

bool StepPlanner::try_grow(Entry* entry) {
  state_.decoding.settle(*entry);
  const RequestShape shape = shape_of(*entry, 1);
  std::optional<InstanceId> holder = find_growth_holder(shape);
  if (!holder) {
    for (InstanceId i = 0; i < view().num_instances(); ++i) {
      if (policy_.permits_growth(view(), shape, i)) is_short_[static_cast<size_t>(i)] = true;
    }
    Entry* victim = find_victim(entry, shape);
    if (victim == nullptr) return false;
    take_from(victim, shape);
    holder = find_growth_holder(shape);
    NANOCP_CHECK(holder.has_value());
  }
  --decision_.loads[static_cast<size_t>(*holder)].num_free_blocks;
  if (entry->placement.find_shard(*holder) == nullptr) {
    charge_route(entry->sequence->binding, *holder, +1);
  }
  decision_.growths.push_back({entry, *holder});
  return true;
}

std::optional<InstanceId> StepPlanner::find_growth_holder(const RequestShape& shape) const {
  const ClusterView now = view();
  const auto preferred = policy_.plan_growth(now, shape);
  if (preferred && now.contains(*preferred) && now.at(*preferred).num_free_blocks > 0) {
    return preferred;
  }
  std::optional<InstanceId> best;
  for (InstanceId i = 0; i < now.num_instances(); ++i) {
    const int64_t num_free = now.at(i).num_free_blocks;
    if (num_free == 0 || !policy_.permits_growth(now, shape, i)) continue;
    if (!best || num_free > now.at(*best).num_free_blocks) best = i;
  }
  return best;
}

// The youngest entry behind `needy` that has a block where `needy` may grow.
Entry* StepPlanner::find_victim(const Entry* needy, const RequestShape& shape) const {
  const auto holders = state_.holders.slots();
  for (auto it = holders.rbegin(); it != holders.rend() && *it != needy; ++it) {
    if (*it == nullptr) continue;
    const int64_t kept = num_kept(*it);
    for (const kvcache::Shard& shard : (*it)->placement.shards()) {
      const bool has_block = !shard.blocks.empty() && shard.block_idx.front() < kept;
      if (has_block && policy_.permits_growth(view(), shape, shard.holder)) return *it;
    }
  }
  return nullptr;
}

// Drops blocks from the victim's end until one is free where `shape` may grow.
void StepPlanner::take_from(Entry* victim, const RequestShape& shape) {
  if (victim->is_running() && !is_planned_away(victim)) preempt(victim);
  int64_t kept = num_kept(victim);
  while (!find_growth_holder(shape)) {
    NANOCP_CHECK_LT(0, kept);
    --kept;
    const auto holder = static_cast<size_t>(victim->placement.block(kept).holder);
    ++decision_.loads[holder].num_free_blocks;
    if (!victim->is_running()) --num_waiting_blocks_[holder];
  }
  set_kept(victim, kept);
}

// Back to the queue with everything that is stored; blocks that hold nothing yet go at once.
void StepPlanner::preempt(Entry* victim) {
  const int64_t kept = kvcache::blocks_for(state_.num_cached(*victim), state_.options.block_size);
  for (int64_t i = kept; i < victim->placement.num_blocks(); ++i) {
    ++decision_.loads[static_cast<size_t>(victim->placement.block(i).holder)].num_free_blocks;
  }
  set_kept(victim, kept);
  InstanceLoad& load = decision_.loads[static_cast<size_t>(victim->sequence->binding)];
  --load.num_sequences;
  charge_routes(*victim, victim->sequence->binding, -1);
  --num_running_;
  if (victim->is_decoding()) {
    --load.num_rows;
    --decision_.num_decode_rows;
  }
  decision_.preempted = true;
}

int64_t StepPlanner::num_kept(const Entry* entry) const {
  if (!is_planned_away(entry)) return entry->placement.num_blocks();
  return decision_.truncations[static_cast<size_t>(entry->truncation_idx)].num_kept;
}

void StepPlanner::set_kept(Entry* entry, int64_t num_kept) {
  if (!is_planned_away(entry)) {
    entry->truncation_idx = static_cast<int32_t>(decision_.truncations.size());
    decision_.truncations.push_back({entry, num_kept, entry->is_running()});
  }
  decision_.truncations[static_cast<size_t>(entry->truncation_idx)].num_kept = num_kept;
}

void StepPlanner::charge_routes(const Entry& entry, InstanceId binding, int32_t sign) {
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    if (!shard.blocks.empty()) charge_route(binding, shard.holder, sign);
  }
}

void StepPlanner::charge_route(InstanceId binding, InstanceId holder, int32_t sign) {
  if (binding == holder) return;
  add_route(binding, holder, sign, state_.domains(),
            decision_.loads[static_cast<size_t>(binding)].routes,
            decision_.loads[static_cast<size_t>(holder)].routes);
}

InstanceId StepPlanner::choose_binding(const Entry& entry, int64_t num_pending_tokens) {
  const InstanceId current = entry.sequence->binding;
  const ClusterView now = view();
  const InstanceId wanted = policy_.plan_binding(now, {.placement = &entry.placement,
                                                       .current = current,
                                                       .num_pending_tokens = num_pending_tokens});
  if (wanted == current || !now.contains(wanted) || !now.at(wanted).can_bind()) return current;
  --decision_.loads[static_cast<size_t>(current)].num_sequences;
  ++decision_.loads[static_cast<size_t>(wanted)].num_sequences;
  charge_routes(entry, current, -1);
  charge_routes(entry, wanted, +1);
  return wanted;
}

// Requires: a row is left on `binding`.
void StepPlanner::schedule(Entry* entry, InstanceId binding) {
  InstanceLoad& load = decision_.loads[static_cast<size_t>(binding)];
  int64_t num_tokens = std::min<int64_t>(entry->num_pending_tokens(), load.num_rows_left());
  if (state_.options.prefill_chunk_tokens > 0) {
    num_tokens = std::min<int64_t>(num_tokens, state_.options.prefill_chunk_tokens);
  }
  NANOCP_CHECK_LT(0, num_tokens);
  load.num_rows += static_cast<int32_t>(num_tokens);
  decision_.chunks.push_back({entry, binding, static_cast<int32_t>(num_tokens)});
}

}  // namespace nanocp::scheduler
