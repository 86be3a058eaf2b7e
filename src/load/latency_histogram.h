// Durations by the million in a fixed amount of memory: buckets that are 1.1 % wide, so that a
// percentile is off by at most 0.6 %. Mean and largest are exact. One thread at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "sim/metrics.h"

namespace nanocp::load {

class LatencyHistogram {
 public:
  void add(double value_us) {
    ++counts_[bucket(value_us)];
    ++count_;
    sum_us_ += value_us;
    max_us_ = std::max(max_us_, value_us);
  }

  void merge(const LatencyHistogram& other) {
    for (size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    count_ += other.count_;
    sum_us_ += other.sum_us_;
    max_us_ = std::max(max_us_, other.max_us_);
  }

  int64_t count() const { return count_; }

  sim::Percentiles percentiles() const {
    if (count_ == 0) return {};
    return {.mean = sum_us_ / static_cast<double>(count_),
            .p50 = quantile(0.50),
            .p90 = quantile(0.90),
            .p99 = quantile(0.99),
            .max = max_us_};
  }

 private:
  static constexpr int kPerOctave = 64;
  static constexpr int kOctaves = 40;  // from 1 us to 12 days

  static size_t bucket(double value_us) {
    if (!(value_us > 1.0)) return 0;
    const double place = std::log2(value_us) * kPerOctave;
    return static_cast<size_t>(std::min(place, static_cast<double>(kPerOctave * kOctaves - 1)));
  }

  // Nearest rank; the middle of its bucket.
  double quantile(double share) const {
    const auto rank = static_cast<int64_t>(std::ceil(share * static_cast<double>(count_)));
    int64_t num_below = 0;
    size_t i = 0;
    while (i + 1 < counts_.size() && num_below + counts_[i] < rank) num_below += counts_[i++];
    return std::min(max_us_, std::exp2((static_cast<double>(i) + 0.5) / kPerOctave));
  }

  std::vector<int64_t> counts_ = std::vector<int64_t>(kPerOctave * kOctaves);
  int64_t count_ = 0;
  double sum_us_ = 0.0;
  double max_us_ = 0.0;
};

}  // namespace nanocp::load
