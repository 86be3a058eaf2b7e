// How many instances may hold one request, and which: those that are large enough for any of them
// to do, so that a request that was taken can grow to its end whichever it began on. Pure
// functions.
#pragma once

#include <cstdint>
#include <span>

#include "kvcache/kv_placement.h"
#include "scheduler/policy.h"

namespace nanocp::scheduler {

struct HolderLimit {
  int32_t max_degree = 0;
  int64_t min_pool_blocks = 0;  // a holder's pool has at least so many

  bool is_large_enough(const InstanceLoad& load) const {
    return load.num_blocks >= min_pool_blocks;
  }
  // A holder stays one.
  bool permits(const ClusterView& view, const kvcache::KvPlacement& placement,
               InstanceId instance) const;
};

// What `max_degree` holders are sure to hold together, or fewer of them if those are so much
// larger. `max_degree` 0: no limit.
int64_t most_blocks_within(std::span<const int64_t> capacities, int32_t max_degree);

// Of a request that grows to `max_blocks`. Requires: most_blocks_within allows it.
HolderLimit holder_limit(const ClusterView& view, int64_t max_blocks, int32_t max_degree);

}  // namespace nanocp::scheduler
