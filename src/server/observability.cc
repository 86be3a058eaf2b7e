#include "server/observability.h"

#include <chrono>
#include <utility>
#include <vector>

namespace nanocp::server {
namespace {

ClusterInfo started_at(ClusterInfo info, int64_t now_us) {
  info.start_us = now_us;
  return info;
}

int64_t unix_time_us() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::microseconds>(now).count();
}

AccessEntry entry_of(const http::Exchange& exchange) {
  AccessEntry entry;
  entry.unix_time_us = unix_time_us();
  entry.request_id = exchange.id;
  entry.client = exchange.remote;
  entry.method = exchange.method;
  entry.path = exchange.path;
  entry.status = exchange.status;
  entry.duration_s = static_cast<double>(exchange.duration_us) * 1e-6;
  entry.is_cut_off = !exchange.complete;
  return entry;
}

void add_generation(AccessEntry& entry, const GenerationNote& note, const std::string& model) {
  entry.model = model;
  entry.num_prompt_tokens = note.num_prompt_tokens;
  entry.num_output_tokens = note.num_output_tokens;
  entry.first_token_s = note.first_token_s;
  entry.degree = note.degree;
  entry.finish_reason = to_string(note.finish_reason);
}

}  // namespace

Observability::Observability(ClusterInfo info, const Clock& clock,
                             std::unique_ptr<AccessLog> access_log)
    : info_(started_at(std::move(info), clock.now_us())),
      clock_(clock),
      access_log_(std::move(access_log)),
      metrics_({.model_name = info_.model,
                .version = info_.version,
                .max_model_len = info_.max_model_len}),
      trace_(info_.start_us) {}

void Observability::set_loaded(std::string device, int64_t max_model_len) {
  info_.device = std::move(device);
  info_.max_model_len = max_model_len;
}

void Observability::on_step(const StepRecord& step) {
  metrics_.on_step(step);
  trace_.on_step(step);
}

void Observability::on_end(const SequenceRecord& sequence) {
  metrics_.on_end(sequence);
  trace_.on_end(sequence);
  if (access_log_ != nullptr) notes_.add(sequence);
}

void Observability::on_exchange(const http::Exchange& exchange, const std::string& route) {
  metrics_.count_response(route, exchange.status);
  if (access_log_ == nullptr) return;
  AccessEntry entry = entry_of(exchange);
  if (const auto note = notes_.take(exchange.id)) add_generation(entry, *note, info_.model);
  access_log_->write(entry);
}

void Observability::finish_access_log() {
  if (access_log_ != nullptr) access_log_->finish();
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
