// What the scheduler knows between two steps. Owned by Scheduler; StepPlanner reads it and decides,
// Scheduler alone changes it (see CONTRACT.md, scheduler.plan and scheduler.commit).
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "kvcache/block_pool.h"
#include "kvcache/kv_placement.h"
#include "request/request.h"
#include "scheduler/options.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

// One open sequence.
struct Entry {
  request::Sequence* sequence;  // the engine's; valid until the entry is gone
  kvcache::KvPlacement placement;
  int32_t priority;
  uint64_t arrival;             // order of Scheduler::add
  int64_t max_blocks;           // at max_tokens
  int32_t num_overtaken = 0;    // admissions of later requests while this one had no room
  bool is_decoding = false;     // while running: in SchedulerState::decoding, not in prefilling
  int32_t truncation_idx = -1;  // StepPlanner's scratch; -1 between plans
  // Where the newest token was sampled, while it is unread.
  InstanceId sampled_on = kNoInstance;
  int32_t sample = -1;

  SequenceId id() const { return sequence->id; }
  bool is_running() const { return sequence->status == request::SequenceStatus::kRunning; }
  int64_t num_pending_tokens() const {
    return sequence->num_tokens() - sequence->num_cached_tokens;
  }
};

// Seniority: less important and younger entries come later.
struct BySeniority {
  bool operator()(const Entry* a, const Entry* b) const {
    return std::tie(a->priority, a->arrival) < std::tie(b->priority, b->arrival);
  }
};
using EntrySet = std::set<Entry*, BySeniority>;

// Running entries in order of seniority, contiguous because every step walks them.
class EntryList {
 public:
  void insert(Entry* entry);
  // Requires: the list has it.
  void erase(Entry* entry);
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<Entry*> entries_;
};

struct SchedulerState {
  SchedulerOptions options;
  std::vector<kvcache::BlockPool> pools;    // [num_instances]
  std::vector<InstanceLoad> loads;          // [num_instances]
  std::vector<int64_t> num_waiting_blocks;  // [num_instances], prefixes of waiting entries
  std::unordered_map<SequenceId, std::unique_ptr<Entry>> entries;
  EntrySet waiting;
  EntrySet holders;      // every entry with at least one block
  EntryList decoding;    // running, only the newest token is pending
  EntryList prefilling;  // running, all others
  uint64_t num_added = 0;
  uint64_t num_admissions = 0;

  bool any_running() const { return !decoding.empty() || !prefilling.empty(); }
  EntryList& running_list(const Entry& entry) { return entry.is_decoding ? decoding : prefilling; }
};

}  // namespace nanocp::scheduler
