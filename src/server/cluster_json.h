// GET /cluster: what the live page shows, as JSON. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "server/cluster_history.h"
#include "server/cluster_snapshot.h"

namespace nanocp::server {

// What does not change while the server lives.
struct ClusterInfo {
  std::string model;   // its served name
  std::string device;  // "4 CPU instances"
  std::string version;
  int64_t max_model_len = 0;
  int64_t start_us = 0;  // of the clock that also times snapshots
};

struct ClusterState {
  const ClusterSnapshot& snapshot;
  const std::vector<HistoryRow>& history;  // those that the asker does not have yet
  double slowest_over_mean = 0.0;          // by measured time; 0: not measured
  bool is_alive = true;
  int64_t now_us = 0;
};

// Times in it are seconds since the start.
std::string cluster_json(const ClusterInfo& info, const ClusterState& state);

// The `since` of a query string such as "since=12.5"; what is no number is -1.
double since_of_query(std::string_view query);

}  // namespace nanocp::server
