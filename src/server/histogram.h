// Values counted by bucket, as Prometheus counts them: a bucket takes what is at most its bound.
// One thread observes, any thread reads at the same time; neither waits for the other or locks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace nanocp::server {

// Adds without a locked instruction. Requires: no other thread writes.
template <typename Number>
void add_as_only_writer(std::atomic<Number>& to, Number amount) {
  to.store(to.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

class Histogram {
 public:
  // Requires: bounds rise.
  explicit Histogram(std::vector<double> bounds)
      : bounds_(std::move(bounds)),
        counts_(std::make_unique<std::atomic<uint64_t>[]>(bounds_.size() + 1)) {}

  void observe(double value) {
    const auto found = std::lower_bound(bounds_.begin(), bounds_.end(), value);
    const auto bucket = static_cast<size_t>(found - bounds_.begin());
    add_as_only_writer<uint64_t>(counts_[bucket], 1);
    add_as_only_writer(sum_, value);
  }

  const std::vector<double>& bounds() const { return bounds_; }
  // Of bucket i alone; that behind the last bound has what is above it.
  uint64_t count(size_t i) const { return counts_[i].load(std::memory_order_relaxed); }
  double sum() const { return sum_.load(std::memory_order_relaxed); }
  uint64_t total() const {
    uint64_t total = 0;
    for (size_t i = 0; i <= bounds_.size(); ++i) total += count(i);
    return total;
  }

 private:
  const std::vector<double> bounds_;
  const std::unique_ptr<std::atomic<uint64_t>[]> counts_;  // [bounds + 1]
  std::atomic<double> sum_ = 0.0;
};

}  // namespace nanocp::server
