#include "sim/plan_hash.h"

namespace nanocp::sim {
namespace {

// Two numbers of 32 bits side by side.
uint64_t pair_of(int64_t high, int64_t low) {
  return (static_cast<uint64_t>(high) << 32) | (static_cast<uint64_t>(low) & 0xffffffffU);
}

}  // namespace

void PlanHash::add(const scheduler::StepPlan& plan) {
  add(plan.step_id, plan.chunks.size(), 0, 0);
  for (const scheduler::ScheduledChunk& chunk : plan.chunks) {
    add(chunk.sequence, pair_of(chunk.binding, chunk.num_tokens),
        static_cast<uint64_t>(chunk.first_position), chunk.samples ? 1 : 0);
  }
  for (size_t i = 0; i < plan.instances.size(); ++i) {
    for (const AttentionItem& item : plan.instances[i].items) add_item(i, item);
  }
}

// Of a shard its size and its ends: a block that was chosen otherwise is an end at some time.
void PlanHash::add_item(uint64_t holder, const AttentionItem& item) {
  const auto num_blocks = static_cast<int64_t>(item.blocks.size());
  const int64_t first = num_blocks > 0 ? item.blocks.front() : -1;
  const int64_t last = num_blocks > 0 ? item.blocks.back() : -1;
  const int64_t last_idx = num_blocks > 0 ? item.block_idx.back() : -1;
  add(item.sequence, pair_of(static_cast<int64_t>(holder), item.source),
      pair_of(item.row_begin, item.num_rows), static_cast<uint64_t>(item.first_position));
  add(static_cast<uint64_t>(num_blocks), pair_of(first, last), static_cast<uint64_t>(last_idx), 1);
}

}  // namespace nanocp::sim
