#include "server/cluster_history.h"

#include <algorithm>

namespace nanocp::server {

void ClusterHistory::add(const HistoryRow& row) {
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;  // the next snapshot comes soon
  if (!rows_.empty()) {
    const double gap_s = row.time_s - rows_.back().time_s;
    const bool ends_work = row.num_running == 0 && rows_.back().num_running > 0;
    if (gap_s < kIntervalS - 1e-6 && !ends_work) return;
    // Nothing is published while nothing happens: what then begins must not be spread over it.
    if (gap_s > 2 * kIntervalS) {
      rows_.push_back(rows_.back());
      rows_.back().time_s = row.time_s - kIntervalS;
    }
  }
  rows_.push_back(row);
  while (rows_.size() > kRowsMax) rows_.pop_front();
}

std::vector<HistoryRow> ClusterHistory::rows_after(double time_s) const {
  const std::lock_guard lock(mutex_);
  const auto first = std::find_if(rows_.begin(), rows_.end(),
                                  [&](const HistoryRow& row) { return row.time_s > time_s; });
  return {first, rows_.end()};
}

HistoryRow history_row(const ClusterSnapshot& snapshot, double inter_token_s,
                       uint64_t num_inter_token) {
  HistoryRow row;
  row.time_s = static_cast<double>(snapshot.time_us) * 1e-6;
  row.num_output_tokens = static_cast<double>(snapshot.tokens.num_output_tokens);
  row.num_prompt_tokens = static_cast<double>(snapshot.tokens.num_prompt_tokens);
  row.inter_token_s = inter_token_s;
  row.num_inter_token = static_cast<double>(num_inter_token);
  row.num_running = static_cast<double>(snapshot.requests.num_running);
  row.num_waiting = static_cast<double>(snapshot.requests.num_waiting);
  row.kv_mean = kv_cache_usage(snapshot);
  row.kv_min = snapshot.instances.empty() ? 0.0 : 1.0;
  for (const InstanceSnapshot& instance : snapshot.instances) {
    if (instance.num_blocks == 0) continue;
    const double share =
        static_cast<double>(instance.num_used_blocks) / static_cast<double>(instance.num_blocks);
    row.kv_min = std::min(row.kv_min, share);
    row.kv_max = std::max(row.kv_max, share);
  }
  return row;
}

}  // namespace nanocp::server
