// Scheduler::check_integrity: every counter against what the placements say.
#include "base/check.h"
#include "scheduler/scheduler.h"

namespace nanocp::scheduler {

void Scheduler::check_entry(Entry& entry, std::vector<InstanceLoad>& expected,
                            std::vector<int64_t>& num_waiting_blocks) const {
  entry.placement.check_integrity();
  const request::Sequence& sequence = *entry.sequence;
  NANOCP_CHECK_EQ(entry.placement.num_tokens(), sequence.num_cached_tokens);
  NANOCP_CHECK_LE(entry.placement.num_blocks(), entry.max_blocks);
  NANOCP_CHECK_EQ(entry.truncation_idx, -1);
  NANOCP_CHECK_EQ(state_.holders.contains(&entry), entry.placement.num_blocks() > 0);
  NANOCP_CHECK_EQ(state_.waiting.contains(&entry), !entry.is_running());
  NANOCP_CHECK_EQ(state_.prefilling.contains(&entry), entry.is_running() && !entry.is_decoding());
  if (entry.is_running()) ++expected[static_cast<size_t>(sequence.binding)].num_sequences;
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    const auto i = static_cast<size_t>(shard.holder);
    const auto num_blocks = static_cast<int64_t>(shard.blocks.size());
    for (const BlockId block : shard.blocks) NANOCP_CHECK(state_.pools[i].owns(entry.id(), block));
    expected[i].num_free_blocks -= num_blocks;
    expected[i].num_kv_tokens += shard.num_tokens;
    if (!entry.is_running()) num_waiting_blocks[i] += num_blocks;
  }
}

void Scheduler::check_integrity() const {
  state_.decoding.check_integrity();
  state_.holders.check_integrity();
  state_.prefilling.check_integrity();
  std::vector<InstanceLoad> expected(state_.loads.size());
  std::vector<int64_t> num_waiting_blocks(state_.loads.size(), 0);
  for (size_t i = 0; i < expected.size(); ++i) {
    expected[i].num_free_blocks = state_.pools[i].num_blocks();
  }
  std::vector<const Entry*> running;
  state_.entries.visit([&](Entry& entry) {
    NANOCP_CHECK(state_.entries.find(entry.id()) == &entry);
    check_entry(entry, expected, num_waiting_blocks);
    if (entry.is_running()) running.push_back(&entry);
  });
  state_.forecast.check_integrity(running);
  NANOCP_CHECK_EQ(running.size(), num_running());
  NANOCP_CHECK_EQ(running.size() + num_waiting(), state_.entries.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    state_.pools[i].check_integrity();
    NANOCP_CHECK_EQ(state_.pools[i].num_free(), expected[i].num_free_blocks);
    NANOCP_CHECK_EQ(state_.loads[i].num_free_blocks, expected[i].num_free_blocks);
    NANOCP_CHECK_EQ(state_.loads[i].num_kv_tokens, expected[i].num_kv_tokens);
    NANOCP_CHECK_EQ(state_.loads[i].num_sequences, expected[i].num_sequences);
    NANOCP_CHECK_EQ(state_.num_waiting_blocks[i], num_waiting_blocks[i]);
    NANOCP_CHECK_LE(state_.loads[i].num_sequences, state_.options.max_num_seqs);
    NANOCP_CHECK_LE(state_.loads[i].num_rows, state_.options.max_batched_tokens);
  }
}

}  // namespace nanocp::scheduler
