#include "scheduler/entry_table.h"

#include <utility>

#include "base/check.h"

namespace nanocp::scheduler {

EntryTable::EntryTable(int32_t block_size, kvcache::RetiredLists* retired)
    : block_size_(block_size), retired_(retired), slots_(64), shift_(64 - 6) {}

size_t EntryTable::find_slot(SequenceId id) const {
  size_t at = home_of(id);
  while (slots_[at].entry != nullptr && slots_[at].id != id) at = next(at);
  return at;
}

Entry* EntryTable::find(SequenceId id) const {
  return slots_[find_slot(id)].entry;
}

Entry& EntryTable::add(request::Sequence* sequence, uint64_t arrival, int64_t max_blocks) {
  if (2 * (size_ + 1) > slots_.size()) grow();
  Slot& slot = slots_[find_slot(sequence->id)];
  NANOCP_CHECK(slot.entry == nullptr);
  const bool has_spare = !spare_.empty();
  kvcache::KvPlacement placement =
      has_spare ? std::move(spare_.back()->placement) : kvcache::KvPlacement(block_size_, retired_);
  Entry fresh{.sequence = sequence,
              .placement = std::move(placement),
              .priority = sequence->request.priority,
              .arrival = arrival,
              .max_blocks = max_blocks};
  if (has_spare) {
    slot.entry = spare_.back();
    spare_.pop_back();
    *slot.entry = std::move(fresh);
  } else {
    entries_.push_back(std::make_unique<Entry>(std::move(fresh)));
    slot.entry = entries_.back().get();
  }
  slot.id = sequence->id;
  ++size_;
  return *slot.entry;
}

// Those behind it move up, as far as they may, so that no gap hides them.
void EntryTable::erase(Entry& entry) {
  size_t gap = find_slot(entry.id());
  NANOCP_CHECK(slots_[gap].entry == &entry);
  NANOCP_CHECK_EQ(entry.placement.num_blocks(), 0);
  for (size_t at = next(gap); slots_[at].entry != nullptr; at = next(at)) {
    const size_t from_home = (at - home_of(slots_[at].id)) & (slots_.size() - 1);
    const size_t from_gap = (at - gap) & (slots_.size() - 1);
    if (from_home < from_gap) continue;
    slots_[gap] = slots_[at];
    gap = at;
  }
  slots_[gap] = {};
  spare_.push_back(&entry);
  --size_;
}

void EntryTable::grow() {
  std::vector<Slot> old(2 * slots_.size());
  std::swap(old, slots_);
  --shift_;
  for (const Slot& slot : old) {
    if (slot.entry != nullptr) slots_[find_slot(slot.id)] = slot;
  }
}

}  // namespace nanocp::scheduler
