// The sequences that decode: one row each in every step, kept from step to step. What changes in
// all of them with each step (position, tokens stored, tokens seen) is kept as sums and as one
// clock, so that a step costs the rows that join, leave, move or enter a block, and not all rows.
// Owned by Scheduler; one thread. See CONTRACT.md, scheduler.rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "scheduler/entry.h"
#include "scheduler/policy.h"
#include "scheduler/step_work.h"

namespace nanocp::scheduler {

class DecodeRows {
 public:
  DecodeRows(const Domains& domains, int32_t num_instances, int32_t block_size, BindingMoves moves);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Of the rows that are bound to an instance, in their order in plans.
  std::span<Entry* const> entries(InstanceId instance) const {
    return bound_[static_cast<size_t>(instance)].entries;
  }
  std::span<const SamplingSequence> sequences(InstanceId instance) const {
    return bound_[static_cast<size_t>(instance)].sequences;
  }
  int32_t num_rows(InstanceId instance) const {
    return static_cast<int32_t>(bound_[static_cast<size_t>(instance)].entries.size());
  }
  // That its rows and shards take part in.
  const RouteCount& routes(InstanceId instance) const {
    return tally_[static_cast<size_t>(instance)].routes;
  }
  // Where the entry's row stands in the next step: so many tokens have their K/V.
  int64_t position(const Entry& entry) const { return entry.origin + clock_; }
  // Rows that stand at the start of a block, in no order.
  std::span<Entry* const> due() const { return due_[bucket_of(0)]; }
  // Rows whose binding the policy may change.
  const EntryList& movable() const { return movable_; }

  // Requires: one token is pending, and the counters of the entry are up to date.
  void join(Entry* entry);
  // Leaves the counters of the entry up to date.
  void leave(Entry* entry);
  void move(Entry* entry, InstanceId binding);
  // The block that the row enters in the next step. Requires: the row is due.
  void append_block(Entry* entry, kvcache::HeldBlock held);
  // Before a step, once all rows have the blocks that they enter.
  void enter_blocks();
  // After a step. Charges the new K/V to the holders.
  void advance(std::span<InstanceLoad> loads);
  // Brings num_cached_tokens and the counters of the placement up to date.
  void settle(Entry& entry) const;

  // What the rows of the step are to each instance; adds to `work`. Requires: enter_blocks().
  void add_work(std::span<InstanceWorkCount> work) const;
  // Aborts when the sums differ from what the entries say.
  void check_integrity() const;

 private:
  struct Bound {
    std::vector<Entry*> entries;
    std::vector<SamplingSequence> sequences;  // of the entries, side by side
  };
  // Of all rows together, what one instance does.
  struct Tally {
    int32_t num_appends = 0;    // rows whose new K/V it stores
    int64_t num_kv_tokens = 0;  // stored, in shards that rows see
    RouteCount routes;
    int32_t num_items = 0;  // pieces of attention: one per row and shard that it sees
    bool operator==(const Tally&) const = default;
  };

  size_t bucket_of(int64_t num_steps_ahead) const {
    return static_cast<size_t>((clock_ + num_steps_ahead) % block_size_);
  }
  void add_to(std::vector<Tally>& tally, const Entry& entry, int32_t sign) const;
  void count_shard(std::vector<Tally>& tally, InstanceId binding, InstanceId holder,
                   int32_t sign) const;
  bool sees(const Entry& entry, const kvcache::Shard& shard) const;
  void place(Entry* entry, InstanceId binding);
  void unplace(Entry* entry);
  void update_movable(Entry* entry);

  const Domains domains_;
  const int32_t block_size_;
  const BindingMoves moves_;
  int64_t clock_ = 0;  // steps so far
  size_t size_ = 0;
  std::vector<Bound> bound_;              // [num_instances]
  std::vector<Tally> tally_;              // [num_instances]
  std::vector<std::vector<Entry*>> due_;  // [block_size], by the clock modulo block_size
  EntryList movable_;
};

}  // namespace nanocp::scheduler
