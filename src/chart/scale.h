// Values to pixels along one axis, and where its ticks stand. Plain data; pure functions.
#pragma once

#include <string>
#include <vector>

namespace nanocp::chart {

struct Axis {
  std::string title;  // with the unit
  bool is_log = false;
  bool starts_at_zero = true;  // linear axes
  // What must be visible besides the data: an objective, 100 %.
  std::vector<double> includes = {};
};

class Scale {
 public:
  // From the smallest to the largest value, to round numbers on both sides when `rounds`. A log
  // scale takes values above 0 and draws the rest at its lower end. Pixels may run downwards.
  struct Pixels {
    double begin;
    double end;
  };
  Scale(const Axis& axis, const std::vector<double>& values, Pixels pixels, bool rounds);

  double to_pixel(double value) const;  // clamped to the axis
  const std::vector<double>& ticks() const { return ticks_; }
  bool is_log() const { return is_log_; }
  double min() const { return min_; }
  double max() const { return max_; }
  Pixels pixels() const { return pixels_; }

 private:
  void set_linear(bool starts_at_zero, bool rounds);
  void set_log(bool rounds);

  bool is_log_;
  double min_ = 0.0;
  double max_ = 1.0;
  Pixels pixels_;
  std::vector<double> ticks_;
};

}  // namespace nanocp::chart
