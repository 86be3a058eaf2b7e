#include "load/serve_metrics.h"

#include <algorithm>
#include <vector>

namespace nanocp::load {
namespace {

struct Samples {
  ServeClass figures;
  std::vector<double> ttft_us;
  std::vector<double> tpot_us;
  std::vector<double> e2e_us;

  void add(const RequestRecord& record, const ServeObjectives& objectives) {
    ++figures.num_requests;
    if (!record.is_finished()) return;
    ++figures.num_finished;
    if (is_good(record, objectives)) ++figures.num_good;
    figures.num_prompt_tokens += record.num_prompt_tokens;
    figures.num_output_tokens += record.num_output_tokens;
    ttft_us.push_back(record.ttft_us());
    e2e_us.push_back(record.e2e_us());
    if (record.has_tpot()) tpot_us.push_back(record.tpot_us());
  }

  ServeClass finish(const LatencyHistogram& itl) {
    figures.ttft_us = sim::percentiles(std::move(ttft_us));
    figures.tpot_us = sim::percentiles(std::move(tpot_us));
    figures.e2e_us = sim::percentiles(std::move(e2e_us));
    figures.itl_us = itl.percentiles();
    return figures;
  }
};

void count(const RequestRecord& record, ServeMetrics& metrics) {
  if (!record.error.empty()) {
    ErrorCount& error = metrics.errors[record.error];
    if (error.count++ == 0) error.example = record.detail;
    return;
  }
  if (record.num_output_tokens < record.num_output_tokens_asked) ++metrics.num_short;
  if (!record.has_usage) ++metrics.num_without_usage;
}

// Requests under way at the same time.
void count_running(const std::vector<const RequestRecord*>& records, ServeMetrics& metrics) {
  std::vector<std::pair<int64_t, int>> changes;
  double sum_us = 0.0;
  for (const RequestRecord* record : records) {
    changes.emplace_back(record->start_us, 1);
    changes.emplace_back(record->end_us, -1);
    sum_us += record->e2e_us();
  }
  std::sort(changes.begin(), changes.end());  // ends before starts at the same time
  int64_t num_running = 0;
  for (const auto& [time_us, change] : changes) {
    num_running += change;
    metrics.max_running = std::max(metrics.max_running, num_running);
  }
  if (metrics.window_s > 0.0) metrics.mean_running = sum_us / 1e6 / metrics.window_s;
}

void compute_rates(ServeMetrics& metrics) {
  if (metrics.window_s <= 0.0) return;
  const ServeClass& all = metrics.all;
  const auto per_s = [&](int64_t number) { return static_cast<double>(number) / metrics.window_s; };
  metrics.requests_per_s = per_s(all.num_finished);
  metrics.output_tokens_per_s = per_s(all.num_output_tokens);
  metrics.total_tokens_per_s = per_s(all.num_output_tokens + all.num_prompt_tokens);
  metrics.goodput_per_s = per_s(all.num_good);
}

}  // namespace

bool is_good(const RequestRecord& record, const ServeObjectives& objectives) {
  return record.is_finished() && record.ttft_us() <= objectives.ttft_us &&
         record.e2e_us() <= objectives.e2e_us &&
         (!record.has_tpot() || record.tpot_us() <= objectives.tpot_us);
}

ServeMetrics compute_serve_metrics(const LoadResult& result, const ServeObjectives& objectives) {
  ServeMetrics metrics;
  Samples all;
  std::array<Samples, sim::kNumClasses> by_class;
  std::vector<const RequestRecord*> measured;
  for (const RequestRecord& record : result.records) {
    if (!record.is_measured) {
      ++metrics.num_unmeasured;
      continue;
    }
    measured.push_back(&record);
    if (record.is_cancelled) {
      ++metrics.num_cancelled;
      continue;
    }
    count(record, metrics);
    all.add(record, objectives);
    by_class[static_cast<size_t>(sim::length_class(record.num_prompt_tokens))].add(record,
                                                                                   objectives);
  }
  metrics.all = all.finish(result.itl);
  for (size_t i = 0; i < by_class.size(); ++i) {
    metrics.by_class[i] = by_class[i].finish(result.itl_by_class[i]);
  }
  if (!measured.empty()) {
    int64_t last_us = 0;
    for (const RequestRecord* record : measured) last_us = std::max(last_us, record->end_us);
    metrics.window_s = static_cast<double>(last_us - measured.front()->arrival_us) / 1e6;
  }
  count_running(measured, metrics);
  compute_rates(metrics);
  return metrics;
}

}  // namespace nanocp::load
