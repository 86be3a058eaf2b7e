#include "scheduler/decode_rows.h"

#include "base/check.h"

namespace nanocp::scheduler {

DecodeRows::DecodeRows(const Domains& domains, int32_t num_instances, int32_t block_size,
                       BindingMoves moves)
    : domains_(domains),
      block_size_(block_size),
      moves_(moves),
      bound_(static_cast<size_t>(num_instances)),
      tally_(static_cast<size_t>(num_instances)),
      due_(static_cast<size_t>(block_size)) {}

// At the start of a block the row's own position lies in a block that the shard may not have yet.
bool DecodeRows::sees(const Entry& entry, const kvcache::Shard& shard) const {
  if (shard.blocks.empty()) return true;
  const int64_t end = position(entry) + (entry.append_holder == kNoInstance ? 0 : 1);
  return int64_t{shard.block_idx.front()} * block_size_ < end;
}

void DecodeRows::count_shard(std::vector<Tally>& tally, InstanceId binding, InstanceId holder,
                             int32_t sign) const {
  Tally& there = tally[static_cast<size_t>(holder)];
  there.num_items += sign;
  if (holder == binding) return;
  add_route(binding, holder, sign, domains_, tally[static_cast<size_t>(binding)].routes,
            there.routes);
}

// Requires: the entry is settled.
void DecodeRows::add_to(std::vector<Tally>& tally, const Entry& entry, int32_t sign) const {
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    if (!sees(entry, shard)) continue;
    tally[static_cast<size_t>(shard.holder)].num_kv_tokens += sign * shard.num_tokens;
    count_shard(tally, entry.sequence->binding, shard.holder, sign);
  }
  if (entry.append_holder != kNoInstance) {
    tally[static_cast<size_t>(entry.append_holder)].num_appends += sign;
  }
}

void DecodeRows::place(Entry* entry, InstanceId binding) {
  Bound& bound = bound_[static_cast<size_t>(binding)];
  entry->row = static_cast<int32_t>(bound.entries.size());
  bound.entries.push_back(entry);
  bound.sequences.push_back({entry->sequence, entry->id()});
}

void DecodeRows::unplace(Entry* entry) {
  Bound& bound = bound_[static_cast<size_t>(entry->sequence->binding)];
  const auto row = static_cast<size_t>(entry->row);
  NANOCP_CHECK(row < bound.entries.size() && bound.entries[row] == entry);
  bound.entries[row] = bound.entries.back();
  bound.entries[row]->row = entry->row;
  bound.sequences[row] = bound.sequences.back();
  bound.entries.pop_back();
  bound.sequences.pop_back();
  entry->row = -1;
}

void DecodeRows::join(Entry* entry) {
  const int64_t first = entry->sequence->num_cached_tokens;
  NANOCP_CHECK_EQ(first, entry->placement.num_tokens());
  entry->origin = first - clock_;
  const int64_t offset = first % block_size_;
  entry->append_holder = offset == 0 ? kNoInstance : entry->placement.block_of(first).holder;
  auto& bucket = due_[bucket_of((block_size_ - offset) % block_size_)];
  entry->due_idx = static_cast<int32_t>(bucket.size());
  bucket.push_back(entry);
  place(entry, entry->sequence->binding);
  add_to(tally_, *entry, +1);
  update_movable(entry);
  ++size_;
}

void DecodeRows::leave(Entry* entry) {
  settle(*entry);
  add_to(tally_, *entry, -1);
  const int64_t offset = position(*entry) % block_size_;
  auto& bucket = due_[bucket_of((block_size_ - offset) % block_size_)];
  const auto at = static_cast<size_t>(entry->due_idx);
  NANOCP_CHECK(at < bucket.size() && bucket[at] == entry);
  bucket[at] = bucket.back();
  bucket[at]->due_idx = entry->due_idx;
  bucket.pop_back();
  unplace(entry);
  if (entry->is_movable) movable_.erase(entry);
  entry->is_movable = false;
  entry->append_holder = kNoInstance;
  --size_;
}

void DecodeRows::move(Entry* entry, InstanceId binding) {
  settle(*entry);
  add_to(tally_, *entry, -1);
  unplace(entry);
  entry->sequence->binding = binding;
  place(entry, binding);
  add_to(tally_, *entry, +1);
  update_movable(entry);
}

void DecodeRows::append_block(Entry* entry, kvcache::HeldBlock held) {
  const kvcache::Shard* shard = entry->placement.find_shard(held.holder);
  const bool is_seen_empty = shard != nullptr && shard->blocks.empty();
  entry->placement.append_block(held);
  // What was seen as an empty shard is seen again when the row enters its block.
  if (is_seen_empty) count_shard(tally_, entry->sequence->binding, held.holder, -1);
  update_movable(entry);
}

void DecodeRows::update_movable(Entry* entry) {
  const kvcache::KvPlacement& placement = entry->placement;
  const bool is_local =
      placement.shards().size() <= 1 && placement.tail_holder() == entry->sequence->binding;
  const bool is_movable =
      moves_ == BindingMoves::kAll || (moves_ == BindingMoves::kSplit && !is_local);
  if (is_movable == entry->is_movable) return;
  entry->is_movable = is_movable;
  if (is_movable) {
    movable_.insert(entry);
  } else {
    movable_.erase(entry);
  }
}

void DecodeRows::enter_blocks() {
  for (Entry* entry : due_[bucket_of(0)]) {
    if (entry->append_holder != kNoInstance) continue;
    const int64_t idx = position(*entry) / block_size_;
    const InstanceId holder = entry->placement.block(idx).holder;
    entry->append_holder = holder;
    ++tally_[static_cast<size_t>(holder)].num_appends;
    const bool is_first = entry->placement.find_shard(holder)->block_idx.front() == idx;
    if (is_first) count_shard(tally_, entry->sequence->binding, holder, +1);
  }
}

void DecodeRows::advance(std::span<InstanceLoad> loads) {
  for (size_t i = 0; i < tally_.size(); ++i) {
    tally_[i].num_kv_tokens += tally_[i].num_appends;
    loads[i].num_kv_tokens += tally_[i].num_appends;
  }
  ++clock_;
  for (Entry* entry : due_[bucket_of(0)]) {
    --tally_[static_cast<size_t>(entry->append_holder)].num_appends;
    entry->append_holder = kNoInstance;
  }
}

void DecodeRows::settle(Entry& entry) const {
  const int64_t now = position(entry);
  if (entry.sequence->num_cached_tokens == now) return;
  entry.placement.advance(now - entry.placement.num_tokens());
  entry.sequence->num_cached_tokens = now;
}

void DecodeRows::add_work(std::span<InstanceWorkCount> work) const {
  for (size_t i = 0; i < tally_.size(); ++i) {
    const Tally& tally = tally_[i];
    work[i].num_rows += static_cast<int32_t>(bound_[i].entries.size());
    work[i].num_attended_rows += tally.num_items;
    work[i].num_kv_tokens += tally.num_kv_tokens + tally.num_appends;
    work[i].routes += tally.routes;
  }
}

void DecodeRows::check_integrity() const {
  std::vector<Tally> expected(tally_.size());
  size_t num_rows = 0;
  size_t num_due = 0;
  size_t num_movable = 0;
  for (size_t i = 0; i < bound_.size(); ++i) {
    NANOCP_CHECK_EQ(bound_[i].entries.size(), bound_[i].sequences.size());
    for (size_t row = 0; row < bound_[i].entries.size(); ++row, ++num_rows) {
      Entry& entry = *bound_[i].entries[row];
      settle(entry);
      NANOCP_CHECK_EQ(entry.row, static_cast<int32_t>(row));
      NANOCP_CHECK(entry.sequence == bound_[i].sequences[row].sequence);
      NANOCP_CHECK_EQ(entry.sequence->binding, static_cast<InstanceId>(i));
      NANOCP_CHECK(movable_.contains(&entry) == entry.is_movable);
      num_movable += entry.is_movable ? 1 : 0;
      add_to(expected, entry, +1);
    }
  }
  for (const auto& bucket : due_) num_due += bucket.size();
  NANOCP_CHECK_EQ(num_rows, size_);
  NANOCP_CHECK_EQ(num_due, size_);
  NANOCP_CHECK_EQ(num_movable, movable_.size());
  NANOCP_CHECK(expected == tally_);
  movable_.check_integrity();
}

}  // namespace nanocp::scheduler
