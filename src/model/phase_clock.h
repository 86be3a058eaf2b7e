// Times what an instance's thread spends a step on: a phase lasts from its mark to the next one.
// Owned by the instance's model; its thread only. Reads no clock unless it is on.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "plan/step_phase.h"

namespace nanocp::model {

class PhaseClock {
 public:
  struct Mark {
    StepPhase phase;
    int32_t layer;  // -1 outside of layers
    double at_us;   // since the step's start
  };

  explicit PhaseClock(bool is_on) : is_on_(is_on) {}

  void start_step() {
    if (!is_on_) return;
    marks_.clear();
    layer_ = -1;
    start_ = std::chrono::steady_clock::now();
  }
  // Marks belong to this layer from now on.
  void set_layer(int32_t layer) { layer_ = layer; }
  void mark(StepPhase phase) {
    if (is_on_) marks_.push_back({phase, layer_, now_us()});
  }
  void end_step() {
    if (is_on_) end_us_ = now_us();
  }

  // Of the last step; empty unless on.
  const std::vector<Mark>& marks() const { return marks_; }
  double end_us() const { return end_us_; }

 private:
  double now_us() const {
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start_)
        .count();
  }

  const bool is_on_;
  int32_t layer_ = -1;
  std::chrono::steady_clock::time_point start_;
  std::vector<Mark> marks_;
  double end_us_ = 0.0;
};

}  // namespace nanocp::model
