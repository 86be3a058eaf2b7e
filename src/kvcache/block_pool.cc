#include "kvcache/block_pool.h"

#include "base/check.h"

namespace nanocp::kvcache {

BlockPool::BlockPool(int64_t num_blocks) {
  NANOCP_CHECK_GE(num_blocks, 0);
  NANOCP_CHECK_LE(num_blocks, std::numeric_limits<BlockId>::max());
  owner_.assign(static_cast<size_t>(num_blocks), kNobody);
  free_.reserve(static_cast<size_t>(num_blocks));
  for (int64_t block = num_blocks - 1; block >= 0; --block) {
    free_.push_back(static_cast<BlockId>(block));
  }
}

BlockId BlockPool::allocate(SequenceId owner) {
  NANOCP_CHECK(!free_.empty());
  const BlockId block = free_.back();
  free_.pop_back();
  owner_[static_cast<size_t>(block)] = tag_of(owner);
  return block;
}

void BlockPool::allocate(SequenceId owner, int64_t count, std::vector<BlockId>& blocks) {
  NANOCP_CHECK_LE(count, num_free());
  blocks.assign(free_.rbegin(), free_.rbegin() + count);
  free_.resize(free_.size() - static_cast<size_t>(count));
  for (const BlockId block : blocks) owner_[static_cast<size_t>(block)] = tag_of(owner);
}

void BlockPool::free(BlockId block, SequenceId owner) {
  NANOCP_CHECK_GE(block, 0);
  NANOCP_CHECK_LT(block, num_blocks());
  NANOCP_CHECK_EQ(owner_[static_cast<size_t>(block)], tag_of(owner));
  owner_[static_cast<size_t>(block)] = kNobody;
  free_.push_back(block);
}

bool BlockPool::owns(SequenceId owner, BlockId block) const {
  return block >= 0 && block < num_blocks() && owner_[static_cast<size_t>(block)] == tag_of(owner);
}

void BlockPool::check_integrity() const {
  std::vector<bool> is_free(owner_.size(), false);
  for (const BlockId block : free_) {
    NANOCP_CHECK(!is_free[static_cast<size_t>(block)]);
    NANOCP_CHECK_EQ(owner_[static_cast<size_t>(block)], kNobody);
    is_free[static_cast<size_t>(block)] = true;
  }
  for (size_t block = 0; block < owner_.size(); ++block) {
    NANOCP_CHECK(is_free[block] == (owner_[block] == kNobody));
  }
}

}  // namespace nanocp::kvcache
