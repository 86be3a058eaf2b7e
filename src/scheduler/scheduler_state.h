// What the scheduler knows between two steps. Owned by Scheduler; StepPlanner reads it and decides,
// Scheduler alone changes it (see CONTRACT.md, scheduler.plan and scheduler.commit).
#pragma once

#include <cstdint>
#include <vector>

#include "kvcache/block_pool.h"
#include "scheduler/decode_rows.h"
#include "scheduler/entry_table.h"
#include "scheduler/growth_forecast.h"
#include "scheduler/options.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

struct SchedulerState {
  SchedulerState(SchedulerOptions scheduler_options, BindingMoves moves);

  SchedulerOptions options;
  std::vector<kvcache::BlockPool> pools;    // [num_instances]
  kvcache::RetiredLists retired;            // of all placements
  std::vector<InstanceLoad> loads;          // [num_instances]
  std::vector<int64_t> num_waiting_blocks;  // [num_instances], prefixes of waiting entries
  EntryTable entries;
  EntryList waiting;
  EntryList holders;        // every entry with at least one block
  DecodeRows decoding;      // running, only the newest token is pending
  EntryList prefilling;     // running, all others
  GrowthForecast forecast;  // of all that run
  uint64_t num_added = 0;
  uint64_t num_admissions = 0;

  Domains domains() const {
    return Domains::of(options.num_instances_per_domain, options.num_instances());
  }
  // Where the entry's tokens are in their cache: counters of decoding sequences lag behind.
  int64_t num_cached(const Entry& entry) const {
    return entry.is_decoding() ? decoding.position(entry) : entry.sequence->num_cached_tokens;
  }
};

}  // namespace nanocp::scheduler
