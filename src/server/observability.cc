#include "server/observability.h"

#include <utility>
#include <vector>

namespace nanocp::server {
namespace {

ClusterInfo started_at(ClusterInfo info, int64_t now_us) {
  info.start_us = now_us;
  return info;
}

}  // namespace

Observability::Observability(ClusterInfo info, const Clock& clock)
    : info_(started_at(std::move(info), clock.now_us())),
      clock_(clock),
      metrics_({.model_name = info_.model,
                .version = info_.version,
                .max_model_len = info_.max_model_len}),
      trace_(info_.start_us) {}

void Observability::on_step(const StepRecord& step) {
  metrics_.on_step(step);
  trace_.on_step(step);
}

void Observability::on_end(const SequenceRecord& sequence) {
  metrics_.on_end(sequence);
  trace_.on_end(sequence);
}

void Observability::on_snapshot(const ClusterSnapshot& snapshot) {
  history_.add(history_row(snapshot, metrics_.inter_token_s(), metrics_.num_inter_token()));
}

std::string Observability::cluster(const ClusterSnapshot& snapshot, bool is_alive,
                                   std::string_view query) const {
  const int64_t now_us = clock_.now_us();
  const double start_s = static_cast<double>(info_.start_us) * 1e-6;
  std::vector<HistoryRow> rows = history_.rows_after(start_s + since_of_query(query));
  // While nothing happens nothing is published: then this is the latest row.
  const double now_s = static_cast<double>(now_us) * 1e-6;
  HistoryRow now = history_row(snapshot, metrics_.inter_token_s(), metrics_.num_inter_token());
  if (now_s - now.time_s >= ClusterHistory::kIntervalS) {
    now.time_s = now_s;
    rows.push_back(now);
  }
  return cluster_json(info_, {.snapshot = snapshot,
                              .history = rows,
                              .slowest_over_mean = metrics_.slowest_over_mean(),
                              .is_alive = is_alive,
                              .now_us = now_us});
}

}  // namespace nanocp::server
