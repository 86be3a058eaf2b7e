// What tests of policies share: instances with so much room, and requests.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/policy.h"

namespace nanocp::scheduler {

struct Cluster {
  explicit Cluster(std::vector<int64_t> num_free, int64_t num_blocks = 1000) {
    for (const int64_t free : num_free) {
      InstanceLoad load;
      load.num_blocks = num_blocks;
      load.num_free_blocks = free;
      load.max_sequences = 64;
      load.max_rows = 64;
      loads.push_back(load);
    }
  }
  ClusterView view() const { return {loads, 16, num_admissions}; }

  std::vector<InstanceLoad> loads;
  uint64_t num_admissions = 0;
};

inline std::unique_ptr<Policy> make(const std::string& name, PolicyOptions options) {
  return std::move(*make_policy(name, options));
}

// A new request of this many blocks.
struct NewRequest {
  explicit NewRequest(int64_t num_blocks) : placement(16) {
    shape.num_prompt_tokens = num_blocks * 16 - 1;
    shape.num_tokens = shape.num_prompt_tokens;
    shape.num_new_blocks = num_blocks;
    shape.max_blocks = num_blocks + 2;
    shape.placement = &placement;
  }
  NewRequest(const NewRequest&) = delete;
  kvcache::KvPlacement placement;
  RequestShape shape;
};

inline std::vector<int64_t> amounts_of(const AdmissionDecision& decision, size_t num_instances) {
  std::vector<int64_t> amounts(num_instances, 0);
  for (const BlockSpan& span : decision.spans) {
    amounts[static_cast<size_t>(span.holder)] += span.num_blocks;
  }
  return amounts;
}

}  // namespace nanocp::scheduler
