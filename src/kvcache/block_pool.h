// The KV blocks of one instance: which are free and which sequence owns each of the others.
// Owned by the scheduler, one pool per instance; one thread. Freeing a block twice, or one that
// somebody else owns, is a bug and aborts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/prefetch.h"
#include "plan/ids.h"

namespace nanocp::kvcache {

class BlockPool {
 public:
  // Requires: num_blocks >= 0.
  explicit BlockPool(int64_t num_blocks);

  int64_t num_blocks() const { return static_cast<int64_t>(owner_.size()); }
  int64_t num_free() const { return static_cast<int64_t>(free_.size()); }
  int64_t num_used() const { return num_blocks() - num_free(); }

  // A free block, now owned by `owner`. Requires: num_free() > 0.
  BlockId allocate(SequenceId owner);
  // As many calls of allocate(). Requires: count <= num_free().
  void allocate(SequenceId owner, int64_t count, std::vector<BlockId>& blocks);
  // Requires: `owner` owns `block`.
  void free(BlockId block, SequenceId owner);
  bool owns(SequenceId owner, BlockId block) const;
  // The block will be freed soon.
  void prefetch_free(BlockId block) const { prefetch(&owner_[static_cast<size_t>(block)]); }

  // Aborts when a block is both free and owned, or free twice, or lost.
  void check_integrity() const;

 private:
  // The low half of an owner's id: enough to find who frees what is not theirs, in half the memory.
  using OwnerTag = uint32_t;
  static constexpr OwnerTag kNobody = std::numeric_limits<OwnerTag>::max();
  static OwnerTag tag_of(SequenceId owner) {
    const auto tag = static_cast<OwnerTag>(owner);
    return tag == kNobody ? 0 : tag;
  }

  std::vector<OwnerTag> owner_;  // [num_blocks], kNobody when free
  std::vector<BlockId> free_;    // last in, first out: a warm block is reused first
};

}  // namespace nanocp::kvcache
