// Who holds the KV cache of one sequence. Logical block i holds positions
// [i * block_size, (i + 1) * block_size) and lies on one instance; only the last block may be
// partly filled. Owned by the scheduler, one per sequence; one thread. It names blocks, the
// instances' BlockPools own them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "kvcache/retired_lists.h"
#include "plan/ids.h"

namespace nanocp::kvcache {

// The blocks of one sequence on one instance. They need not be neighbours in the sequence: a tail
// may move away and come back. May be empty. What a span of a list shows never changes: lists grow
// in place behind it, and otherwise another one takes its place.
struct Shard {
  InstanceId holder = kNoInstance;
  int64_t num_tokens = 0;          // stored in this shard
  std::vector<BlockId> blocks;     // by rising position
  std::vector<int32_t> block_idx;  // logical block index of blocks[i], rising
};

struct HeldBlock {
  InstanceId holder;
  BlockId block;
};

class KvPlacement {
 public:
  // Lists of shards that are replaced go to `retired`, which outlives the placement, or are freed
  // at once. Requires: block_size > 0.
  explicit KvPlacement(int32_t block_size, RetiredLists* retired = nullptr);

  int32_t block_size() const { return block_size_; }
  int64_t num_blocks() const { return static_cast<int64_t>(blocks_.size()); }
  // Positions [0, num_tokens) are stored.
  int64_t num_tokens() const { return num_tokens_; }
  int64_t capacity_tokens() const { return num_blocks() * block_size_; }
  // The holder of the last block, kNoInstance when there is none.
  InstanceId tail_holder() const { return blocks_.empty() ? kNoInstance : blocks_.back().holder; }

  std::span<const Shard> shards() const { return shards_; }
  // Context-parallel degree: how many instances hold at least one block.
  int32_t degree() const;
  const Shard* find_shard(InstanceId holder) const;
  // By logical index.
  const HeldBlock& block(int64_t idx) const { return blocks_[static_cast<size_t>(idx)]; }
  // Requires: 0 <= position < capacity_tokens().
  const HeldBlock& block_of(int64_t position) const { return block(position / block_size_); }
  // The place of a position in its holder's cache: block id * block_size + offset.
  int64_t slot_of(int64_t position) const {
    return static_cast<int64_t>(block_of(position).block) * block_size_ + position % block_size_;
  }

  // Makes sure `holder` has a shard, possibly an empty one.
  void add_holder(InstanceId holder);
  void append_block(HeldBlock held);
  // Several on one holder.
  void append_blocks(InstanceId holder, std::span<const BlockId> blocks);
  // Positions [num_tokens, num_tokens + count) have been written. Requires: they have blocks.
  void advance(int64_t count);
  // Keeps the first blocks, drops the others from the end and returns them, last block first.
  // Shards that lose all their blocks go too. Requires: 0 <= num_kept <= num_blocks().
  std::vector<HeldBlock> truncate_blocks(int64_t num_kept);
  // Keeps the blocks of positions [0, num_tokens). Requires: 0 <= num_tokens <= this->num_tokens().
  std::vector<HeldBlock> truncate(int64_t num_tokens);
  // Drops everything, empty shards included.
  void clear();

  // Calls visit(holder, count) for each piece of [first, first + count) that lies in neighbouring
  // blocks of one holder.
  template <typename Visitor>
  void visit_range(int64_t first, int64_t count, Visitor visit) const {
    while (count > 0) {
      const InstanceId holder = block_of(first).holder;
      int64_t idx = first / block_size_ + 1;
      while (idx * block_size_ < first + count && block(idx).holder == holder) ++idx;
      const int64_t piece = std::min(count, idx * block_size_ - first);
      visit(holder, piece);
      first += piece;
      count -= piece;
    }
  }

  // Aborts when shards, blocks and counters disagree.
  void check_integrity() const;

 private:
  Shard& shard_of(InstanceId holder);
  void reserve(std::vector<int32_t>& list, size_t capacity);
  void retire(std::vector<int32_t>&& list);

  int32_t block_size_;
  RetiredLists* retired_;
  int64_t num_tokens_ = 0;
  std::vector<HeldBlock> blocks_;  // by logical index
  std::vector<Shard> shards_;      // one per holder, in order of first use
};

// ceil(num_tokens / block_size). Requires: num_tokens >= 0.
inline int64_t blocks_for(int64_t num_tokens, int32_t block_size) {
  return num_tokens / block_size + (num_tokens % block_size != 0 ? 1 : 0);
}

}  // namespace nanocp::kvcache
