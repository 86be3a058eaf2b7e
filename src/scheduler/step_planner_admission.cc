// Admission, the second half of StepPlanner; see CONTRACT.md, scheduler.admission.
#include <algorithm>

#include "base/check.h"
#include "scheduler/step_planner.h"

namespace nanocp::scheduler {
namespace {

// Blocks that a request may need beyond those that it asks for now.
int64_t growth_of(const RequestShape& shape) {
  return shape.max_blocks - shape.placement->num_blocks() - shape.num_new_blocks;
}

}  // namespace

bool StepPlanner::has_row_and_seat() const {
  return std::any_of(decision_.loads.begin(), decision_.loads.end(),
                     [](const InstanceLoad& load) { return load.can_bind(); });
}

// Looks at the head of the queue and at a bounded number of others behind blocked ones.
void StepPlanner::plan_admissions() {
  auto& blocked = decision_.overtakes;
  for (Entry* entry : state_.waiting.slots()) {
    if (entry == nullptr) continue;
    if (!has_row_and_seat()) break;
    // Who has just lost blocks waits for the next step.
    if (!is_planned_away(entry) && try_admit(entry, blocked.empty())) {
      for (PlannedOvertake& overtaken : blocked) ++overtaken.count;
    } else {
      blocked.push_back({entry, 0});
      if (static_cast<int64_t>(blocked.size()) > state_.options.admission_lookahead) break;
    }
    const bool patience_is_out =
        std::any_of(blocked.begin(), blocked.end(), [this](const PlannedOvertake& overtaken) {
          return overtaken.entry->num_overtaken + overtaken.count >= state_.options.max_overtakes;
        });
    if (patience_is_out) break;
  }
}

// Leaves the watermark to the running sequences, and an instance alone where somebody has just been
// preempted. With nobody running all blocks may be used, so that the largest request is admitted in
// the end.
void StepPlanner::set_admission_load(InstanceId instance) {
  const auto i = static_cast<size_t>(instance);
  admission_loads_[i] = decision_.loads[i];
  int64_t& num_free = admission_loads_[i].num_free_blocks;
  if (is_short_[i]) num_free = 0;
  if (num_running_ > 0) num_free = std::max<int64_t>(0, num_free - num_reserved_[i]);
}

void StepPlanner::refresh_admission_loads() {
  admission_loads_.resize(decision_.loads.size());
  for (InstanceId i = 0; i < view().num_instances(); ++i) set_admission_load(i);
  if (admission_index_) admission_index_->rebuild(view_of(admission_loads_));
}

// What an admission has changed: all there is when it is the first one, as the watermark holds
// then.
void StepPlanner::refresh_admission_loads(const PlannedAdmission& admission) {
  if (num_running_ == 1) return refresh_admission_loads();
  const auto refresh = [this](InstanceId instance) {
    set_admission_load(instance);
    if (admission_index_) admission_index_->update(view_of(admission_loads_), instance);
  };
  const InstanceId binding = admission.decision.binding;
  refresh(binding);
  for (const BlockSpan& span : admission.decision.spans) {
    if (span.holder != binding) refresh(span.holder);
  }
  for (const kvcache::Shard& shard : admission.entry->placement.shards()) {
    if (shard.holder != binding) refresh(shard.holder);
  }
}

std::optional<AdmissionDecision> StepPlanner::ask(const RequestShape& shape) {
  if (!admission_index_) return ask(admission_loads_, shape);
  return checked(admission_index_->plan(view_of(admission_loads_), shape));
}

std::optional<AdmissionDecision> StepPlanner::ask(const std::vector<InstanceLoad>& loads,
                                                  const RequestShape& shape) const {
  return checked(policy_.plan_admission(view_of(loads), shape));
}

std::optional<AdmissionDecision> StepPlanner::checked(
    std::optional<AdmissionDecision> decision) const {
  if (!decision) return std::nullopt;
  NANOCP_CHECK(view().contains(decision->binding));
  if (!decision_.loads[static_cast<size_t>(decision->binding)].can_bind()) return std::nullopt;
  return decision;
}

bool StepPlanner::try_admit(Entry* entry, bool is_head) {
  const request::Sequence& sequence = *entry->sequence;
  // Room for every token so far and the one to come, but never more than the request can reach.
  const int64_t num_wanted = std::min(
      entry->max_blocks, kvcache::blocks_for(sequence.num_tokens() + 1, state_.options.block_size));
  const RequestShape shape = shape_of(*entry, num_wanted - entry->placement.num_blocks());
  if (admission_loads_.empty()) refresh_admission_loads();
  std::optional<AdmissionDecision> decision = ask(shape);
  const bool evicts = !decision && is_head;
  if (evicts) {
    decision = plan_with_eviction(entry, shape);
  } else if (decision && !leaves_room_to_grow(*decision, shape, admission_loads_)) {
    decision = ask_with_reserve(shape);
  }
  if (!decision) return false;

  find_holders(*decision, entry->placement);
  for (const BlockSpan& span : holders_) {
    add_newcomer(span, std::ssize(holders_), shape, newcomers_[static_cast<size_t>(span.holder)]);
  }
  charge_spans(*decision, shape);
  for (int64_t i = 0; i < entry->placement.num_blocks(); ++i) {
    --num_waiting_blocks_[static_cast<size_t>(entry->placement.block(i).holder)];
  }
  const InstanceId binding = decision->binding;
  ++decision_.loads[static_cast<size_t>(binding)].num_sequences;
  charge_routes(*entry, binding, +1);
  for (const BlockSpan& span : decision->spans) {
    if (entry->placement.find_shard(span.holder) != nullptr) continue;
    charge_route(binding, span.holder, +1);
  }
  ++num_running_;
  decision_.admissions.push_back({entry, std::move(*decision)});
  if (sequence.awaits_synthetic_kv()) {
    decision_.synthesized = true;
  } else {
    schedule(entry, binding);
  }
  if (evicts) {
    refresh_admission_loads();
  } else {
    refresh_admission_loads(decision_.admissions.back());
  }
  return true;
}

// Those of a placement that a decision adds to, each with what it adds.
void StepPlanner::find_holders(const AdmissionDecision& decision,
                               const kvcache::KvPlacement& placement) {
  holders_.clear();
  const auto add = [this](const BlockSpan& added) {
    const auto found = std::find_if(holders_.begin(), holders_.end(), [&](const BlockSpan& span) {
      return span.holder == added.holder;
    });
    if (found == holders_.end()) {
      holders_.push_back(added);
    } else {
      found->num_blocks += added.num_blocks;
    }
  };
  for (const BlockSpan& span : decision.spans) add(span);
  for (const kvcache::Shard& shard : placement.shards()) add({shard.holder, 0});
}

void StepPlanner::add_newcomer(const BlockSpan& span, int64_t degree, const RequestShape& shape,
                               GrowthForecast::Newcomers& newcomers) {
  const int32_t parts = GrowthForecast::parts_of(degree);
  ++newcomers.group.num_sequences;
  newcomers.group.num_blocks += static_cast<int32_t>(span.num_blocks);
  newcomers.group.num_parts += parts;
  newcomers.most_growth += parts * growth_of(shape);
}

// Whether all holders are expected to have what they and the newcomer will need.
bool StepPlanner::leaves_room_to_grow(const AdmissionDecision& decision, const RequestShape& shape,
                                      const std::vector<InstanceLoad>& loads) {
  if (!reserves_growth()) return true;
  find_holders(decision, *shape.placement);
  return std::all_of(holders_.begin(), holders_.end(), [&](const BlockSpan& span) {
    const auto i = static_cast<size_t>(span.holder);
    GrowthForecast::Newcomers newcomers = newcomers_[i];
    add_newcomer(span, std::ssize(holders_), shape, newcomers);
    return state_.forecast.fits(span.holder, loads[i].num_free_blocks - span.num_blocks, newcomers);
  });
}

// Of instances where the policy would like it best it may be that others have more to come: what
// they are expected to need counts as used.
std::optional<AdmissionDecision> StepPlanner::ask_with_reserve(const RequestShape& shape) {
  std::vector<InstanceLoad> loads = admission_loads_;
  for (InstanceId i = 0; i < view().num_instances(); ++i) {
    const auto at = static_cast<size_t>(i);
    int64_t& num_free = loads[at].num_free_blocks;
    if (num_free == 0) continue;
    const int64_t room = state_.forecast.room(i, num_free, newcomers_[at], growth_of(shape));
    num_free = std::clamp<int64_t>(room, 0, num_free);
  }
  std::optional<AdmissionDecision> decision = ask(loads, shape);
  if (decision && !leaves_room_to_grow(*decision, shape, admission_loads_)) return std::nullopt;
  return decision;
}

// Takes the blocks of a decision, which must be there.
void StepPlanner::charge_spans(const AdmissionDecision& decision, const RequestShape& shape) {
  int64_t num_blocks = 0;
  for (const BlockSpan& span : decision.spans) {
    NANOCP_CHECK(view().contains(span.holder));
    NANOCP_CHECK_GE(span.num_blocks, 0);
    num_blocks += span.num_blocks;
    int64_t& num_free = decision_.loads[static_cast<size_t>(span.holder)].num_free_blocks;
    num_free -= span.num_blocks;
    NANOCP_CHECK_GE(num_free, 0);
  }
  NANOCP_CHECK_EQ(num_blocks, shape.num_new_blocks);
}

// The head of the queue may take the prefixes that later waiting entries have kept, but no more of
// them than it needs.
std::optional<AdmissionDecision> StepPlanner::plan_with_eviction(const Entry* entry,
                                                                 const RequestShape& shape) {
  std::vector<InstanceLoad> loads = admission_loads_;
  std::vector<InstanceLoad> best_case = loads;
  bool any = false;
  for (size_t i = 0; i < best_case.size(); ++i) {
    const kvcache::Shard* own = entry->placement.find_shard(static_cast<InstanceId>(i));
    const auto num_own = own == nullptr ? 0 : static_cast<int64_t>(own->blocks.size());
    best_case[i].num_free_blocks += num_waiting_blocks_[i] - num_own;
    any = any || num_waiting_blocks_[i] > num_own;
  }
  if (!any || !ask(best_case, shape)) return std::nullopt;

  std::vector<Drop> drops = find_drops(entry, shape, loads);
  keep_needless_drops(drops, shape, loads);
  std::optional<AdmissionDecision> decision = ask(loads, shape);
  if (!decision || !leaves_room_to_grow(*decision, shape, loads)) return std::nullopt;
  for (const Drop& drop : drops) {
    for (int64_t i = drop.num_kept; i < num_kept(drop.entry); ++i) {
      const auto holder = static_cast<size_t>(drop.entry->placement.block(i).holder);
      ++decision_.loads[holder].num_free_blocks;
      --num_waiting_blocks_[holder];
    }
    set_kept(drop.entry, drop.num_kept);
  }
  return decision;
}

namespace {

// Blocks [begin, end) of a placement become free (+1) or used (-1) in `loads`.
void charge(const kvcache::KvPlacement& placement, int64_t begin, int64_t end, int64_t sign,
            std::vector<InstanceLoad>& loads) {
  for (int64_t i = begin; i < end; ++i) {
    loads[static_cast<size_t>(placement.block(i).holder)].num_free_blocks += sign;
  }
}

}  // namespace

// Empties waiting entries from the youngest on until the policy finds room. Most senior first.
std::vector<StepPlanner::Drop> StepPlanner::find_drops(const Entry* entry,
                                                       const RequestShape& shape,
                                                       std::vector<InstanceLoad>& loads) const {
  std::vector<Drop> drops;
  const BySeniority is_senior;
  const auto holders = state_.holders.slots();
  // NOLINTNEXTLINE(modernize-loop-convert): in reverse
  for (auto it = holders.rbegin(); it != holders.rend(); ++it) {
    if (*it == nullptr) continue;
    if (!is_senior(entry, *it)) break;
    if ((*it)->is_running() || num_kept(*it) == 0) continue;
    charge((*it)->placement, 0, num_kept(*it), +1, loads);
    drops.push_back({*it, 0});
    if (ask(loads, shape)) break;
  }
  std::reverse(drops.begin(), drops.end());
  return drops;
}

// Gives back what was taken in vain: whole entries that did not matter, then as many leading
// blocks of each other one as possible.
void StepPlanner::keep_needless_drops(std::vector<Drop>& drops, const RequestShape& shape,
                                      std::vector<InstanceLoad>& loads) const {
  for (Drop& drop : drops) {
    const kvcache::KvPlacement& placement = drop.entry->placement;
    int64_t low = 0;  // most blocks that are known to be kept without harm
    int64_t high = num_kept(drop.entry);
    while (low < high) {
      const int64_t middle = low + (high - low + 1) / 2;
      charge(placement, low, middle, -1, loads);
      if (ask(loads, shape)) {
        low = middle;
      } else {
        charge(placement, low, middle, +1, loads);
        high = middle - 1;
      }
    }
    drop.num_kept = low;
  }
}

}  // namespace nanocp::scheduler
