// The last minutes of the cluster, a row a second, so that the live page has its charts as soon as
// it is opened. The engine loop's thread adds, any thread reads; the adder never waits.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string_view>
#include <vector>

#include "server/cluster_snapshot.h"

namespace nanocp::server {

// Counters are those since the start, so that rates follow from any two rows.
struct HistoryRow {
  double time_s = 0.0;  // of the clock that also times snapshots
  double num_output_tokens = 0.0;
  double num_prompt_tokens = 0.0;
  double inter_token_s = 0.0;  // sum of the times between tokens
  double num_inter_token = 0.0;
  double num_running = 0.0;
  double num_waiting = 0.0;
  double kv_min = 0.0;  // share in use, emptiest instance
  double kv_mean = 0.0;
  double kv_max = 0.0;
};

class ClusterHistory {
 public:
  static constexpr size_t kRowsMax = 300;
  static constexpr double kIntervalS = 1.0;

  // Keeps a row of it unless the last one is younger than kIntervalS, or somebody is reading.
  void add(const HistoryRow& row);
  // Rows later than `time_s`, oldest first.
  std::vector<HistoryRow> rows_after(double time_s) const;

 private:
  mutable std::mutex mutex_;
  std::deque<HistoryRow> rows_;  // guarded by mutex_
};

// Requires: the snapshot's counters and these are of the same time.
HistoryRow history_row(const ClusterSnapshot& snapshot, double inter_token_s,
                       uint64_t num_inter_token);

}  // namespace nanocp::server
