#include "server/cluster_snapshot.h"

namespace nanocp::server {

double kv_cache_usage(const ClusterSnapshot& snapshot) {
  int64_t num_blocks = 0;
  int64_t num_used = 0;
  for (const InstanceSnapshot& instance : snapshot.instances) {
    num_blocks += instance.num_blocks;
    num_used += instance.num_used_blocks;
  }
  return num_blocks > 0 ? static_cast<double>(num_used) / static_cast<double>(num_blocks) : 0.0;
}

}  // namespace nanocp::server
