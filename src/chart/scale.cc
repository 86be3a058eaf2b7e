#include "chart/scale.h"

#include <algorithm>
#include <cmath>

namespace nanocp::chart {
namespace {

constexpr double kNumTicks = 5.0;

// 1, 2 or 5 times a power of ten.
double nice_step(double span) {
  const double raw = span / kNumTicks;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double digits = raw / power;
  return power * (digits <= 1.0 ? 1.0 : digits <= 2.0 ? 2.0 : digits <= 5.0 ? 5.0 : 10.0);
}

}  // namespace

Scale::Scale(const Axis& axis, const std::vector<double>& values, Pixels pixels, bool rounds)
    : is_log_(axis.is_log), pixels_(pixels) {
  std::vector<double> shown;
  for (const std::vector<double>* list : {&values, &axis.includes}) {
    for (const double value : *list) {
      if (std::isfinite(value) && (!is_log_ || value > 0.0)) shown.push_back(value);
    }
  }
  if (shown.empty()) shown = {1.0};
  const auto [low, high] = std::minmax_element(shown.begin(), shown.end());
  min_ = *low;
  max_ = *high;
  if (is_log_) {
    set_log(rounds);
  } else {
    set_linear(axis.starts_at_zero, rounds);
  }
}

void Scale::set_linear(bool starts_at_zero, bool rounds) {
  if (starts_at_zero) min_ = std::min(min_, 0.0);
  if (max_ - min_ <= 1e-12 * std::max(1.0, std::abs(max_)))
    max_ = min_ + (min_ == 0.0 ? 1.0 : std::abs(min_));
  const double step = nice_step(max_ - min_);
  if (rounds) {
    min_ = std::floor(min_ / step + 1e-9) * step;
    max_ = std::ceil(max_ / step - 1e-9) * step;
  }
  const auto first = static_cast<int64_t>(std::ceil(min_ / step - 1e-9));
  const auto last = static_cast<int64_t>(std::floor(max_ / step + 1e-9));
  for (int64_t i = first; i <= last; ++i) ticks_.push_back(static_cast<double>(i) * step);
}

void Scale::set_log(bool rounds) {
  if (max_ < min_ * 1.0001) {
    min_ /= 2.0;
    max_ *= 2.0;
  }
  const double decades = std::log10(max_ / min_);
  std::vector<double> digits = {1.0, 2.0, 5.0};
  if (decades > 3.0) digits = {1.0};
  std::vector<double> marks;
  const int first = static_cast<int>(std::floor(std::log10(min_))) - 1;
  const int last = static_cast<int>(std::ceil(std::log10(max_))) + 1;
  for (int power = first; power <= last; ++power) {
    for (const double digit : digits) marks.push_back(digit * std::pow(10.0, power));
  }
  if (rounds) {
    const auto above = std::upper_bound(marks.begin(), marks.end(), min_ * 1.000001);
    min_ = *(above - 1);
    max_ = *std::lower_bound(marks.begin(), marks.end(), max_ * 0.999999);
  }
  for (const double mark : marks) {
    if (mark >= min_ * 0.999999 && mark <= max_ * 1.000001) ticks_.push_back(mark);
  }
}

double Scale::to_pixel(double value) const {
  const double clamped = std::isnan(value) ? min_ : std::clamp(value, min_, max_);
  const double share =
      is_log_ ? std::log(clamped / min_) / std::log(max_ / min_) : (clamped - min_) / (max_ - min_);
  return pixels_.begin + share * (pixels_.end - pixels_.begin);
}

}  // namespace nanocp::chart
