// The open sequences by their id. Entries of those that are gone are used again, with the memory
// that their placements hold. Owned by SchedulerState; one thread.
#pragma once

#include <memory>
#include <vector>

#include "scheduler/entry.h"

namespace nanocp::scheduler {

class EntryTable {
 public:
  // Of placements, and where their lists go.
  EntryTable(int32_t block_size, kvcache::RetiredLists* retired);

  // A new entry with an empty placement. Requires: there is none with the sequence's id.
  Entry& add(request::Sequence* sequence, uint64_t arrival, int64_t max_blocks);
  // Null when there is none. Valid until it is erased.
  Entry* find(SequenceId id) const;
  // Requires: the entry is in the table and holds no blocks.
  void erase(Entry& entry);
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

  // visit(Entry&), in no order.
  template <typename Visitor>
  void visit(Visitor visit) const {
    for (const Slot& slot : slots_) {
      if (slot.entry != nullptr) visit(*slot.entry);
    }
  }

 private:
  // An id is looked for from its home on.
  struct Slot {
    SequenceId id = 0;
    Entry* entry = nullptr;
  };
  // By the upper bits of a product, so that ids that follow each other do not lie side by side:
  // rows of slots without a gap would be long.
  size_t home_of(SequenceId id) const {
    return static_cast<size_t>((id * 0x9E3779B97F4A7C15U) >> shift_);
  }
  size_t next(size_t at) const { return (at + 1) & (slots_.size() - 1); }
  // Where the id is, or the free slot where it belongs.
  size_t find_slot(SequenceId id) const;
  void grow();

  int32_t block_size_;
  kvcache::RetiredLists* retired_;
  std::vector<Slot> slots_;  // a power of two, at most half of them in use
  int shift_;                // 64 less its logarithm
  size_t size_ = 0;
  std::vector<std::unique_ptr<Entry>> entries_;  // all, spare ones included
  std::vector<Entry*> spare_;
};

}  // namespace nanocp::scheduler
