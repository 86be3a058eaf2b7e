#include "ops/rotary.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace nanocp::ops {
namespace {

// The (fractional) pair index whose wavelength makes `rotations` turns within the original context.
double correction_dim(const RotarySpec& spec, double rotations) {
  const double dim = spec.rotary_dim;
  return dim *
         std::log(static_cast<double>(spec.original_max_position) /
                  (rotations * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(spec.theta));
}

// YaRN, section 3.2: pairs that turn often keep their frequency, slow ones are interpolated, and a
// linear ramp joins the two.
std::vector<float> yarn_frequencies(const RotarySpec& spec) {
  double low = correction_dim(spec, spec.beta_fast);
  double high = correction_dim(spec, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(spec.rotary_dim - 1));
  if (low == high) high += 0.001;  // no division by zero
  std::vector<float> frequencies(static_cast<size_t>(spec.rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double base =
        std::pow(spec.theta, -2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_dim));
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] = static_cast<float>(base / spec.factor * ramp + base * (1.0 - ramp));
  }
  return frequencies;
}

void rotate_pair(float& a, float& b, float cos, float sin) {
  const float x = a;
  const float y = b;
  a = x * cos - y * sin;
  b = y * cos + x * sin;
}

}  // namespace

std::vector<float> rotary_frequencies(const RotarySpec& spec) {
  if (spec.scaling == RotaryScaling::kYarn) return yarn_frequencies(spec);
  const double divisor = spec.scaling == RotaryScaling::kLinear ? spec.factor : 1.0;
  std::vector<float> frequencies(static_cast<size_t>(spec.rotary_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double exponent = -2.0 * static_cast<double>(i) / static_cast<double>(spec.rotary_dim);
    frequencies[i] = static_cast<float>(std::pow(spec.theta, exponent) / divisor);
  }
  return frequencies;
}

RotaryTable::RotaryTable(const RotarySpec& spec)
    : spec_(spec), frequencies_(rotary_frequencies(spec)) {}

void RotaryTable::prepare(std::span<const int32_t> positions) {
  const auto rows = static_cast<int64_t>(positions.size());
  const auto cols = static_cast<int64_t>(frequencies_.size());
  const tensor::Matrix cos = cos_.resize(rows, cols);
  const tensor::Matrix sin = sin_.resize(rows, cols);
  const auto scale = static_cast<float>(spec_.cos_sin_scale);
  for (int64_t r = 0; r < rows; ++r) {
    const auto position = static_cast<double>(positions[static_cast<size_t>(r)]);
    for (int64_t i = 0; i < cols; ++i) {
      // The product in double: float32 angles are off by 1e-2 rad at a million tokens.
      const double angle = position * static_cast<double>(frequencies_[static_cast<size_t>(i)]);
      cos.row(r)[i] = static_cast<float>(std::cos(angle)) * scale;
      sin.row(r)[i] = static_cast<float>(std::sin(angle)) * scale;
    }
  }
}

void RotaryTable::apply(tensor::Matrix x, const Heads& heads) const {
  const tensor::Matrix cos = cos_.view();
  const tensor::Matrix sin = sin_.view();
  NANOCP_CHECK_EQ(x.rows, cos.rows);
  const int64_t half = cos.cols;
  const int64_t step = spec_.interleaved ? 2 : 1;
  const int64_t partner = spec_.interleaved ? 1 : half;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int h = 0; h < heads.num_heads; ++h) {
      float* head = x.row(r) + h * heads.head_stride + heads.first_col;
      for (int64_t i = 0; i < half; ++i) {
        rotate_pair(head[step * i], head[step * i + partner], cos.row(r)[i], sin.row(r)[i]);
      }
    }
  }
}

}  // namespace nanocp::ops
