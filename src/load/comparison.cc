#include "load/comparison.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "base/random.h"
#include "sim/metrics.h"

namespace nanocp::load {
namespace {

constexpr int kNumResamples = 1000;
constexpr size_t kNumRunsForSpread = 3;
constexpr size_t kNumRequestsMin = 20;  // below, blocks say nothing
constexpr uint64_t kSeed = 1;

struct Metric {
  const char* name;
  const char* unit;
  double scale;  // to the unit
  bool is_less_better;
};

constexpr size_t kNumMetrics = 11;
constexpr std::array<Metric, kNumMetrics> kMetrics = {{{"TTFT mean", "ms", 1e-3, true},
                                                       {"TTFT P50", "ms", 1e-3, true},
                                                       {"TTFT P99", "ms", 1e-3, true},
                                                       {"TPOT mean", "ms", 1e-3, true},
                                                       {"TPOT P50", "ms", 1e-3, true},
                                                       {"TPOT P99", "ms", 1e-3, true},
                                                       {"e2e P50", "s", 1e-6, true},
                                                       {"e2e P99", "s", 1e-6, true},
                                                       {"requests/s", "", 1.0, false},
                                                       {"output tokens/s", "", 1.0, false},
                                                       {"goodput", "req/s", 1.0, false}}};
using Figures = std::array<double, kNumMetrics>;  // in the order of kMetrics; NaN: none

using Requests = std::vector<RequestSample>;

sim::Percentiles percentiles_or_none(std::vector<double> values) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  if (values.empty()) return {kNone, kNone, kNone, kNone, kNone};
  return sim::percentiles(std::move(values));
}

Figures figures_of(const Requests& requests, double window_s) {
  std::vector<double> ttft_us;
  std::vector<double> tpot_us;
  std::vector<double> e2e_us;
  double num_tokens = 0.0;
  double num_good = 0.0;
  for (const RequestSample& request : requests) {
    if (!request.is_finished) continue;
    ttft_us.push_back(request.ttft_us);
    e2e_us.push_back(request.e2e_us);
    if (request.tpot_us >= 0.0) tpot_us.push_back(request.tpot_us);
    num_tokens += static_cast<double>(request.num_output_tokens);
    num_good += request.is_good ? 1.0 : 0.0;
  }
  const double per_s = window_s > 0.0 ? 1.0 / window_s : std::nan("");
  const auto num_finished = static_cast<double>(ttft_us.size());
  const sim::Percentiles ttft = percentiles_or_none(std::move(ttft_us));
  const sim::Percentiles tpot = percentiles_or_none(std::move(tpot_us));
  const sim::Percentiles e2e = percentiles_or_none(std::move(e2e_us));
  return {ttft.mean,
          ttft.p50,
          ttft.p99,
          tpot.mean,
          tpot.p50,
          tpot.p99,
          e2e.p50,
          e2e.p99,
          num_finished * per_s,
          num_tokens * per_s,
          num_good * per_s};
}

// Blocks of n^(1/3) requests, the order that suits means (Hall, Horowitz and Jing, 1995).
Requests resample(const Requests& requests, Random& random) {
  const size_t count = requests.size();
  const auto length = static_cast<size_t>(std::ceil(std::cbrt(static_cast<double>(count))));
  Requests drawn;
  drawn.reserve(count + length);
  while (drawn.size() < count) {
    const size_t first = random.below(count - length + 1);
    const size_t last = first + std::min(length, count - drawn.size());
    for (size_t i = first; i < last; ++i) drawn.push_back(requests[i]);
  }
  return drawn;
}

double mean_of(const std::vector<double>& values) {
  double sum = 0.0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

// The 97.5 % quantile of Student's t distribution: exact where the expansion (Abramowitz and Stegun
// 26.7.5) is not good to three digits.
double t_quantile(double degrees) {
  constexpr std::array<double, 6> kExact = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447};
  if (degrees < 7.0) return kExact[static_cast<size_t>(std::max(1.0, degrees)) - 1];
  constexpr double kZ = 1.959964;
  const double z2 = kZ * kZ;
  return kZ * (1.0 + (z2 + 1.0) / (4.0 * degrees) +
               (5.0 * z2 * z2 + 16.0 * z2 + 3.0) / (96.0 * degrees * degrees) +
               (3.0 * z2 * z2 * z2 + 19.0 * z2 * z2 + 17.0 * z2 - 15.0) /
                   (384.0 * degrees * degrees * degrees));
}

double variance_of_mean(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0.0;
  for (const double value : values) sum += (value - mean) * (value - mean);
  const auto count = static_cast<double>(values.size());
  return sum / (count - 1.0) / count;
}

std::vector<Figures> each_run(const std::vector<RunSamples>& runs) {
  std::vector<Figures> figures;
  figures.reserve(runs.size());
  for (const RunSamples& run : runs) figures.push_back(figures_of(run.requests, run.window_s));
  return figures;
}

std::vector<double> values_of(const std::vector<Figures>& figures, size_t metric) {
  std::vector<double> values;
  values.reserve(figures.size());
  for (const Figures& one : figures) values.push_back(one[metric]);
  return values;
}

// The half-width of the interval around the difference of the means.
double welch_half_width(const std::vector<double>& a, const std::vector<double>& b) {
  const double va = variance_of_mean(a);
  const double vb = variance_of_mean(b);
  if (va + vb == 0.0) return 0.0;
  const double degrees =
      (va + vb) * (va + vb) /
      (va * va / static_cast<double>(a.size() - 1) + vb * vb / static_cast<double>(b.size() - 1));
  return t_quantile(degrees) * std::sqrt(va + vb);
}

double sum_of_gaps(const Requests& requests) {
  double sum_us = 0.0;
  for (const RequestSample& request : requests) sum_us += request.gap_us;
  return sum_us;
}

// Requests that come closer together make a shorter run: else rates would not vary.
Figures resampled_figures(const RunSamples& run, Random& random) {
  const Requests drawn = resample(run.requests, random);
  const double span_us = sum_of_gaps(run.requests);
  const double stretch = span_us > 0.0 ? sum_of_gaps(drawn) / span_us : 1.0;
  return figures_of(drawn, run.window_s * stretch);
}

// Means over runs whose requests were drawn anew.
Figures resampled_means(const std::vector<RunSamples>& runs, Random& random) {
  Figures means{};
  for (const RunSamples& run : runs) {
    const Figures figures = resampled_figures(run, random);
    for (size_t i = 0; i < kNumMetrics; ++i) {
      means[i] += figures[i] / static_cast<double>(runs.size());
    }
  }
  return means;
}

struct Interval {
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
};

Interval middle_95(std::vector<double> changes) {
  if (changes.size() < kNumResamples / 2) return {};
  std::sort(changes.begin(), changes.end());
  const auto at = [&](double share) {
    return changes[static_cast<size_t>(share * static_cast<double>(changes.size() - 1))];
  };
  return {.low = at(0.025), .high = at(0.975)};
}

std::array<Interval, kNumMetrics> intervals_within_runs(const std::vector<RunSamples>& a,
                                                        const std::vector<RunSamples>& b) {
  Random random(kSeed);
  std::array<std::vector<double>, kNumMetrics> changes;
  for (int i = 0; i < kNumResamples; ++i) {
    const Figures of_a = resampled_means(a, random);
    const Figures of_b = resampled_means(b, random);
    for (size_t k = 0; k < kNumMetrics; ++k) {
      const double change = of_b[k] / of_a[k] - 1.0;
      if (std::isfinite(change)) changes[k].push_back(change);
    }
  }
  std::array<Interval, kNumMetrics> intervals;
  for (size_t k = 0; k < kNumMetrics; ++k) intervals[k] = middle_95(std::move(changes[k]));
  return intervals;
}

Verdict verdict_of(const Difference& difference, bool is_less_better) {
  if (!std::isfinite(difference.low) || !std::isfinite(difference.high)) return Verdict::kUnknown;
  if (difference.low <= 0.0 && difference.high >= 0.0) return Verdict::kWithinNoise;
  return (difference.high < 0.0) == is_less_better ? Verdict::kBetter : Verdict::kWorse;
}

bool has_enough(const std::vector<RunSamples>& runs) {
  return std::all_of(runs.begin(), runs.end(),
                     [](const RunSamples& run) { return run.requests.size() >= kNumRequestsMin; });
}

}  // namespace

const char* to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kWithinNoise:
      return "within noise";
    case Verdict::kBetter:
      return "better";
    case Verdict::kWorse:
      return "worse";
    case Verdict::kUnknown:
      return "not known: too few requests, or A is 0";
  }
  return "unknown";
}

Comparison compare_runs(const std::vector<RunSamples>& a, const std::vector<RunSamples>& b) {
  const bool has_runs = a.size() >= kNumRunsForSpread && b.size() >= kNumRunsForSpread;
  Comparison comparison;
  comparison.noise = has_runs ? Noise::kBetweenRuns : Noise::kWithinRuns;
  std::array<Interval, kNumMetrics> intervals;
  if (!has_runs && has_enough(a) && has_enough(b)) intervals = intervals_within_runs(a, b);
  const std::vector<Figures> figures_a = each_run(a);
  const std::vector<Figures> figures_b = each_run(b);
  for (size_t k = 0; k < kNumMetrics; ++k) {
    const std::vector<double> of_a = values_of(figures_a, k);
    const std::vector<double> of_b = values_of(figures_b, k);
    const double from = mean_of(of_a);
    const double to = mean_of(of_b);
    if (std::isnan(from) || std::isnan(to)) continue;
    const double change = from == to ? 0.0 : to / from - 1.0;
    if (has_runs && from > 0.0) {
      const double half_width = welch_half_width(of_a, of_b) / from;
      intervals[k] = {.low = change - half_width, .high = change + half_width};
    }
    const Metric& metric = kMetrics[k];
    comparison.differences.push_back({.metric = metric.name,
                                      .unit = metric.unit,
                                      .a = from * metric.scale,
                                      .b = to * metric.scale,
                                      .change = change,
                                      .low = intervals[k].low,
                                      .high = intervals[k].high});
    Difference& difference = comparison.differences.back();
    difference.verdict = verdict_of(difference, metric.is_less_better);
  }
  return comparison;
}

}  // namespace nanocp::load
