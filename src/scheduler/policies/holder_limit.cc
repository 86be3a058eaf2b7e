#include "scheduler/policies/holder_limit.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

namespace nanocp::scheduler {
namespace {

bool has_limit(int32_t max_degree, int64_t num_instances) {
  return max_degree > 0 && max_degree < num_instances;
}

// Any `degree` of the `degree` largest are sure to hold as much as this.
int64_t sure_blocks(std::span<const int64_t> falling, int32_t degree) {
  return falling[static_cast<size_t>(degree) - 1] * degree;
}

}  // namespace

bool HolderLimit::permits(const ClusterView& view, const kvcache::KvPlacement& placement,
                          InstanceId instance) const {
  if (placement.find_shard(instance) != nullptr) return true;
  return std::ssize(placement.shards()) < max_degree && is_large_enough(view.at(instance));
}

int64_t most_blocks_within(std::span<const int64_t> capacities, int32_t max_degree) {
  if (!has_limit(max_degree, std::ssize(capacities))) {
    return std::accumulate(capacities.begin(), capacities.end(), int64_t{0});
  }
  std::vector<int64_t> sizes(capacities.begin(), capacities.end());
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  int64_t most = 0;
  for (int32_t degree = 1; degree <= max_degree; ++degree) {
    most = std::max(most, sure_blocks(sizes, degree));
  }
  return most;
}

HolderLimit holder_limit(const ClusterView& view, int64_t max_blocks, int32_t max_degree) {
  if (!has_limit(max_degree, view.num_instances())) return {.max_degree = view.num_instances()};
  std::vector<int64_t> sizes;
  sizes.reserve(view.instances.size());
  for (const InstanceLoad& load : view.instances) sizes.push_back(load.num_blocks);
  // Equal pools, as a rule.
  const int64_t smallest = *std::min_element(sizes.begin(), sizes.end());
  if (smallest * max_degree >= max_blocks) return {.max_degree = max_degree};
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  int32_t degree = max_degree;
  while (degree > 1 && sure_blocks(sizes, degree) < max_blocks) --degree;
  return {.max_degree = degree, .min_pool_blocks = (max_blocks + degree - 1) / degree};
}

}  // namespace nanocp::scheduler
