// One open sequence as the scheduler knows it, and lists of them by seniority. Owned by Scheduler;
// one thread.
#pragma once

#include <compare>
#include <cstdint>
#include <span>
#include <vector>

#include "kvcache/kv_placement.h"
#include "request/request.h"

namespace nanocp::scheduler {

struct Entry {
  request::Sequence* sequence;  // the engine's; valid until the entry is gone
  kvcache::KvPlacement placement;
  int32_t priority;
  uint64_t arrival;             // order of Scheduler::add
  int64_t max_blocks;           // at max_tokens
  int32_t num_overtaken = 0;    // admissions of later requests while this one had no room
  int32_t truncation_idx = -1;  // StepPlanner's scratch; -1 between plans
  int32_t output_class = -1;    // of its outputs so far, as of when GrowthForecast last looked

  // Set by DecodeRows. While the entry is decoding, counters of `sequence` and `placement` lag
  // behind until DecodeRows::settle.
  int32_t row = -1;                        // among the decode rows of its binding; -1: has none
  int32_t due_idx = -1;                    // among the rows that enter a block in the same step
  int64_t origin = 0;                      // position of the row less the clock of DecodeRows
  InstanceId append_holder = kNoInstance;  // stores the row's K/V; none at the start of a block
  bool is_movable = false;                 // the policy is asked in each step who runs the row

  // Where the newest token was sampled, while it is unread.
  InstanceId sampled_on = kNoInstance;
  int32_t sample = -1;

  SequenceId id() const { return sequence->id; }
  bool is_running() const { return sequence->status == request::SequenceStatus::kRunning; }
  bool is_decoding() const { return row >= 0; }
  // Requires: not decoding (then it is 1).
  int64_t num_pending_tokens() const {
    return sequence->num_tokens() - sequence->num_cached_tokens;
  }
};

// What entries are ordered by: less important and younger ones come later.
struct Seniority {
  int32_t priority;
  uint64_t arrival;
  auto operator<=>(const Seniority&) const = default;  // NOLINT(modernize-use-nullptr): not ours
};
inline Seniority seniority_of(const Entry& entry) {
  return {entry.priority, entry.arrival};
}

struct BySeniority {
  bool operator()(const Entry* a, const Entry* b) const {
    return seniority_of(*a) < seniority_of(*b);
  }
};

// Entries in order of seniority. Keys lie side by side and erased entries leave a gap for a while,
// so that a long list changes without a walk through memory, and a queue at both ends.
class EntryList {
 public:
  // Nothing happens when the list has it.
  void insert(Entry* entry);
  // Nothing happens when the list does not have it.
  void erase(Entry* entry);
  bool contains(const Entry* entry) const;
  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  // The most senior first; null where an entry was erased. Valid until the list changes.
  std::span<Entry* const> slots() const { return std::span(slots_).subspan(begin_); }
  void check_integrity() const;

 private:
  size_t lower_bound(const Seniority& key) const;
  void close_gaps();

  std::vector<Seniority> keys_;  // rising, of gaps too
  std::vector<Entry*> slots_;    // as many
  size_t begin_ = 0;             // those before it are gaps
  size_t size_ = 0;
};

}  // namespace nanocp::scheduler
