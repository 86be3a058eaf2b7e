#include "server/load_json.h"

#include <sstream>

namespace nanocp::server {

std::string load_json(const ClusterSnapshot& snapshot, int64_t num_open, int64_t num_waiting) {
  std::ostringstream out;
  out << "{\"server_load\":" << num_open << ",\"waiting\":" << num_waiting
      << ",\"running\":" << snapshot.requests.num_running
      << ",\"kv_cache_usage\":" << kv_cache_usage(snapshot) << ",\"instances\":[";
  const char* separator = "";
  for (const InstanceSnapshot& instance : snapshot.instances) {
    out << separator << "{\"kv_blocks\":" << instance.num_blocks
        << ",\"kv_blocks_used\":" << instance.num_used_blocks
        << ",\"running\":" << instance.num_sequences << "}";
    separator = ",";
  }
  out << "]}";
  return out.str();
}

}  // namespace nanocp::server
