// The last values of a kind. New ones are copied over the oldest, whose memory they use again: what
// is kept for long does not wander through the heap among what lives shortly, and leave holes.
// No synchronisation of its own.
#pragma once

#include <cstddef>
#include <vector>

namespace nanocp::server {

template <typename Value>
class Ring {
 public:
  // Requires: capacity > 0.
  explicit Ring(size_t capacity) : capacity_(capacity) { values_.reserve(capacity); }

  void push(const Value& value) {
    if (values_.size() < capacity_) {
      values_.push_back(value);
      return;
    }
    values_[oldest_] = value;
    oldest_ = (oldest_ + 1) % capacity_;
  }
  // Oldest first.
  std::vector<Value> values() const {
    std::vector<Value> ordered;
    ordered.reserve(values_.size());
    for (size_t i = 0; i < values_.size(); ++i) {
      ordered.push_back(values_[(oldest_ + i) % values_.size()]);
    }
    return ordered;
  }

 private:
  const size_t capacity_;
  std::vector<Value> values_;
  size_t oldest_ = 0;
};

}  // namespace nanocp::server
