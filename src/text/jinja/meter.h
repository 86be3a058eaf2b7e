// Counts what a rendering costs and stops it at its limits. One per rendering; one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <utility>

#include "text/jinja/limits.h"
#include "text/jinja/template_error.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

class Meter {
 public:
  explicit Meter(const Limits& limits)
      : limits_(limits),
        deadline_(std::chrono::steady_clock::now() +
                  std::chrono::microseconds(limits.duration_us_max)) {}

  const Limits& limits() const { return limits_; }

  void step(int64_t count = 1) {
    const int64_t before = steps_;
    steps_ += count;
    if (steps_ > limits_.steps_max) stop("steps", limits_.steps_max);
    constexpr int kStepsPerLook = 12;  // log2
    if ((before >> kStepsPerLook) != (steps_ >> kStepsPerLook)) look_at_clock();
  }
  // So many bytes or values are read or written.
  void touch(size_t count) { step(static_cast<int64_t>(count / 64)); }

  // Memory that an operation needs while it runs must fit too, but does not add up.
  void expect(size_t size_bytes) const {
    const auto left = static_cast<size_t>(limits_.memory_bytes_max - memory_bytes_);
    if (size_bytes > left) stop("bytes of memory", limits_.memory_bytes_max);
  }
  void allocate(size_t size_bytes) {
    expect(size_bytes);
    memory_bytes_ += static_cast<int64_t>(size_bytes);
  }

  Value make(std::string text) {
    touch(text.size());
    allocate(text.size() + kObjectBytes);
    return {std::move(text)};
  }
  Value make(List items) {
    touch(items.size() * sizeof(Value));
    allocate(items.size() * sizeof(Value) + kObjectBytes);
    return checked(Value(std::move(items)));
  }
  Value make(Dict items) {
    touch(items.size() * sizeof(Dict::value_type));
    allocate(items.size() * sizeof(Dict::value_type) + kObjectBytes);
    return checked(Value(std::move(items)));
  }

  [[noreturn]] static void stop(const std::string& what, int64_t limit) {
    throw TemplateError(TemplateError::Kind::kLimit,
                        "needs more than " + std::to_string(limit) + " " + what);
  }

 private:
  static constexpr size_t kObjectBytes = 64;

  Value checked(Value value) const {
    if (value.depth() > limits_.value_depth_max) {
      stop("lists and dicts inside each other", limits_.value_depth_max);
    }
    return value;
  }
  void look_at_clock() const {
    if (std::chrono::steady_clock::now() > deadline_) {
      stop("microseconds", limits_.duration_us_max);
    }
  }

  Limits limits_;
  std::chrono::steady_clock::time_point deadline_;
  int64_t steps_ = 0;
  int64_t memory_bytes_ = 0;
};

}  // namespace nanocp::text::jinja
