#include "ops/activation.h"

#include <algorithm>
#include <cmath>

namespace nanocp::ops {
namespace {

constexpr float kClampLimit = 7.0F;  // gpt-oss: swiglu_limit
constexpr float kClampAlpha = 1.702F;

float sigmoid(float x) {
  return 1.0F / (1.0F + std::exp(-x));
}

float clamped_swiglu(float gate, float up) {
  gate = std::min(gate, kClampLimit);
  up = std::clamp(up, -kClampLimit, kClampLimit);
  return (up + 1.0F) * gate * sigmoid(kClampAlpha * gate);
}

}  // namespace

void gated_activation(Activation activation, tensor::Matrix gate, tensor::ConstMatrix up) {
  NANOCP_CHECK_EQ(gate.rows, up.rows);
  NANOCP_CHECK_EQ(gate.cols, up.cols);
  for (int64_t r = 0; r < gate.rows; ++r) {
    float* g = gate.row(r);
    const float* u = up.row(r);
    if (activation == Activation::kSwiglu) {
      for (int64_t i = 0; i < gate.cols; ++i) g[i] = g[i] * sigmoid(g[i]) * u[i];
    } else {
      for (int64_t i = 0; i < gate.cols; ++i) g[i] = clamped_swiglu(g[i], u[i]);
    }
  }
}

}  // namespace nanocp::ops
