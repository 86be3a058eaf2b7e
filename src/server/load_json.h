// The answer of /load: how busy the server is, in numbers that a balancer of load can compare. Pure
// function.
#pragma once

#include <cstdint>
#include <string>

#include "server/cluster_snapshot.h"

namespace nanocp::server {

// {"server_load": open requests, "waiting", "running", "kv_cache_usage", "instances": [...]}
std::string load_json(const ClusterSnapshot& snapshot, int64_t num_open, int64_t num_waiting);

}  // namespace nanocp::server
