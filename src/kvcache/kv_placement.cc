#include "kvcache/kv_placement.h"

#include <bit>
#include <limits>

namespace nanocp::kvcache {

KvPlacement::KvPlacement(int32_t block_size, RetiredLists* retired)
    : block_size_(block_size), retired_(retired) {
  NANOCP_CHECK_LT(0, block_size);
}

void KvPlacement::retire(std::vector<int32_t>&& list) {
  if (retired_ != nullptr) retired_->add(std::move(list));
}

void KvPlacement::reserve(std::vector<int32_t>& list, size_t capacity) {
  if (capacity <= list.capacity()) return;
  std::vector<int32_t> longer;
  if (retired_ != nullptr) {
    longer = retired_->take(capacity);
  } else {
    longer.reserve(std::bit_ceil(capacity));
  }
  longer.assign(list.begin(), list.end());
  list.swap(longer);
  retire(std::move(longer));
}

int32_t KvPlacement::degree() const {
  return static_cast<int32_t>(std::count_if(shards_.begin(), shards_.end(),
                                            [](const Shard& s) { return !s.blocks.empty(); }));
}

const Shard* KvPlacement::find_shard(InstanceId holder) const {
  for (const Shard& shard : shards_) {
    if (shard.holder == holder) return &shard;
  }
  return nullptr;
}

Shard& KvPlacement::shard_of(InstanceId holder) {
  const Shard* shard = find_shard(holder);
  NANOCP_CHECK(shard != nullptr);
  return const_cast<Shard&>(*shard);
}

void KvPlacement::add_holder(InstanceId holder) {
  NANOCP_CHECK_GE(holder, 0);
  if (find_shard(holder) == nullptr)
    shards_.push_back({.holder = holder, .blocks = {}, .block_idx = {}});
}

void KvPlacement::append_block(HeldBlock held) {
  NANOCP_CHECK_LT(num_blocks(), std::numeric_limits<int32_t>::max());
  add_holder(held.holder);
  Shard& shard = shard_of(held.holder);
  reserve(shard.blocks, shard.blocks.size() + 1);
  reserve(shard.block_idx, shard.block_idx.size() + 1);
  shard.blocks.push_back(held.block);
  shard.block_idx.push_back(static_cast<int32_t>(blocks_.size()));
  blocks_.push_back(held);
}

void KvPlacement::append_blocks(InstanceId holder, std::span<const BlockId> blocks) {
  NANOCP_CHECK_LE(num_blocks() + std::ssize(blocks), std::numeric_limits<int32_t>::max());
  add_holder(holder);
  Shard& shard = shard_of(holder);
  // One block more comes soon in most cases.
  const size_t capacity = blocks_.size() + blocks.size() + 1;
  if (capacity > blocks_.capacity()) blocks_.reserve(std::bit_ceil(capacity));
  reserve(shard.blocks, shard.blocks.size() + blocks.size() + 1);
  reserve(shard.block_idx, shard.block_idx.size() + blocks.size() + 1);
  shard.blocks.insert(shard.blocks.end(), blocks.begin(), blocks.end());
  for (const BlockId block : blocks) {
    shard.block_idx.push_back(static_cast<int32_t>(blocks_.size()));
    blocks_.push_back({holder, block});
  }
}

void KvPlacement::advance(int64_t count) {
  NANOCP_CHECK_GE(count, 0);
  NANOCP_CHECK_LE(num_tokens_ + count, capacity_tokens());
  visit_range(num_tokens_, count,
              [this](InstanceId holder, int64_t piece) { shard_of(holder).num_tokens += piece; });
  num_tokens_ += count;
}

std::vector<HeldBlock> KvPlacement::truncate_blocks(int64_t num_kept) {
  NANOCP_CHECK_GE(num_kept, 0);
  NANOCP_CHECK_LE(num_kept, num_blocks());
  std::vector<HeldBlock> dropped;
  dropped.reserve(static_cast<size_t>(num_blocks() - num_kept));
  for (Shard& shard : shards_) {
    if (shard.block_idx.empty() || shard.block_idx.back() < num_kept) continue;
    // Others will be written where the dropped ones are.
    for (std::vector<int32_t>* list : {&shard.blocks, &shard.block_idx}) {
      std::vector<int32_t> copy = *list;
      list->swap(copy);
      retire(std::move(copy));
    }
  }
  while (num_blocks() > num_kept) {
    const int64_t first = (num_blocks() - 1) * block_size_;
    const HeldBlock last = blocks_.back();
    Shard& shard = shard_of(last.holder);
    const int64_t num_lost = std::max<int64_t>(0, num_tokens_ - first);
    shard.num_tokens -= num_lost;
    num_tokens_ -= num_lost;
    shard.blocks.pop_back();
    shard.block_idx.pop_back();
    if (shard.blocks.empty()) shards_.erase(shards_.begin() + (&shard - shards_.data()));
    blocks_.pop_back();
    dropped.push_back(last);
  }
  return dropped;
}

std::vector<HeldBlock> KvPlacement::truncate(int64_t num_tokens) {
  NANOCP_CHECK_GE(num_tokens, 0);
  NANOCP_CHECK_LE(num_tokens, num_tokens_);
  const int64_t num_lost = num_tokens_ - num_tokens;
  visit_range(num_tokens, num_lost,
              [this](InstanceId holder, int64_t piece) { shard_of(holder).num_tokens -= piece; });
  num_tokens_ = num_tokens;
  return truncate_blocks(blocks_for(num_tokens, block_size_));
}

void KvPlacement::clear() {
  for (Shard& shard : shards_) {
    retire(std::move(shard.blocks));
    retire(std::move(shard.block_idx));
  }
  constexpr size_t kMostKept = 1024;  // for another sequence
  if (blocks_.capacity() > kMostKept) blocks_ = {};
  blocks_.clear();
  shards_.clear();
  num_tokens_ = 0;
}

void KvPlacement::check_integrity() const {
  std::vector<size_t> seen(shards_.size(), 0);
  std::vector<int64_t> tokens(shards_.size(), 0);
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Shard* shard = find_shard(blocks_[i].holder);
    NANOCP_CHECK(shard != nullptr);
    const auto s = static_cast<size_t>(shard - shards_.data());
    NANOCP_CHECK_LT(seen[s], shard->blocks.size());
    NANOCP_CHECK_EQ(shard->blocks[seen[s]], blocks_[i].block);
    NANOCP_CHECK_EQ(shard->block_idx[seen[s]], static_cast<int32_t>(i));
    const int64_t first = static_cast<int64_t>(i) * block_size_;
    tokens[s] += std::clamp<int64_t>(num_tokens_ - first, 0, block_size_);
    ++seen[s];
  }
  for (size_t s = 0; s < shards_.size(); ++s) {
    NANOCP_CHECK_EQ(seen[s], shards_[s].blocks.size());
    NANOCP_CHECK_EQ(seen[s], shards_[s].block_idx.size());
    NANOCP_CHECK_EQ(tokens[s], shards_[s].num_tokens);
    NANOCP_CHECK(find_shard(shards_[s].holder) == &shards_[s]);
  }
  NANOCP_CHECK_LE(num_tokens_, capacity_tokens());
}

}  // namespace nanocp::kvcache
