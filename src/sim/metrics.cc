#include "sim/metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nanocp::sim {
namespace {

constexpr int64_t kShortTokens = 8'000;
constexpr int64_t kLongTokens = 64'000;

struct Samples {
  ClassMetrics metrics;
  std::vector<double> tpot_us;
  std::vector<double> queue_us;

  void add(const RequestRecord& record, const Objectives& objectives) {
    ++metrics.num_requests;
    if (record.is_refused) ++metrics.num_refused;
    if (!record.is_refused && !record.is_finished()) ++metrics.num_unfinished;
    if (record.start_us >= 0) queue_us.push_back(record.queue_us());
    if (record.is_finished()) tpot_us.push_back(record.tpot_us());
    const bool keeps_tpot = record.is_finished() && record.tpot_us() <= objectives.tpot_us;
    const bool keeps_queue = record.start_us >= 0 && record.queue_us() <= objectives.queue_us;
    if (!keeps_tpot) ++metrics.num_tpot_misses;
    if (!keeps_queue) ++metrics.num_queue_misses;
    if (record.is_finished()) count_degree(static_cast<size_t>(record.degree));
  }

  void count_degree(size_t degree) {
    if (metrics.num_by_degree.size() <= degree) metrics.num_by_degree.resize(degree + 1);
    ++metrics.num_by_degree[degree];
  }

  ClassMetrics finish() {
    metrics.tpot_us = percentiles(std::move(tpot_us));
    metrics.queue_us = percentiles(std::move(queue_us));
    return metrics;
  }
};

}  // namespace

int length_class(int64_t num_prompt_tokens) {
  if (num_prompt_tokens < kShortTokens) return 0;
  return num_prompt_tokens <= kLongTokens ? 1 : 2;
}

int64_t Objectives::num_misses_allowed(int64_t count) const {
  return static_cast<int64_t>(std::floor((1.0 - percentile) * static_cast<double>(count) + 1e-9));
}

Percentiles percentiles(std::vector<double> values) {
  Percentiles result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const auto rank = [&](double share) {
    const double position = std::ceil(share * static_cast<double>(values.size()));
    return values[static_cast<size_t>(std::max(1.0, position)) - 1];
  };
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  result.p50 = rank(0.50);
  result.p90 = rank(0.90);
  result.p99 = rank(0.99);
  result.max = values.back();
  return result;
}

double Metrics::attainment() const {
  if (all.num_requests == 0) return 1.0;
  return 1.0 - static_cast<double>(all.num_tpot_misses) / static_cast<double>(all.num_requests);
}

std::string Metrics::missed(const Objectives& objectives) const {
  const auto is_more = [&](int64_t num_misses, int64_t count) {
    return num_misses > objectives.num_misses_allowed(count);
  };
  for (const ClassMetrics& one : by_class) {
    if (is_more(one.num_refused, one.num_requests)) return std::string(kRefusedName);
  }
  for (size_t i = 0; i < by_class.size(); ++i) {
    const ClassMetrics& one = by_class[i];
    if (is_more(one.num_tpot_misses - one.num_unfinished, one.num_requests)) {
      return tpot_objective_name(static_cast<int>(i));
    }
  }
  for (const ClassMetrics& one : by_class) {
    if (is_more(one.num_tpot_misses, one.num_requests)) return std::string(kUnfinishedName);
  }
  return is_more(all.num_queue_misses, all.num_requests) ? std::string(kQueueName) : std::string();
}

std::string tpot_objective_name(int length_class) {
  return "TPOT of prompts " + std::string(kClassNames[static_cast<size_t>(length_class)]);
}

Metrics compute_metrics(std::span<const RequestRecord> records, const Objectives& objectives) {
  Samples all;
  std::array<Samples, kNumClasses> by_class;
  Metrics metrics;
  for (const RequestRecord& record : records) {
    if (!record.is_measured) continue;
    if (record.is_cancelled) {
      ++metrics.num_cancelled;
      continue;
    }
    all.add(record, objectives);
    by_class[static_cast<size_t>(length_class(record.arrival.num_prompt_tokens))].add(record,
                                                                                      objectives);
    metrics.num_preemptions += record.num_preemptions;
  }
  metrics.all = all.finish();
  for (size_t i = 0; i < by_class.size(); ++i) metrics.by_class[i] = by_class[i].finish();
  return metrics;
}

}  // namespace nanocp::sim
