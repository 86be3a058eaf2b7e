#include "ops/norm.h"

#include <cmath>

namespace nanocp::ops {
namespace {

void norm_row(const float* x, std::span<const float> weight, float eps, float* out) {
  // Eight partial sums let the compiler use vector registers without reordering by itself.
  constexpr size_t kLanes = 8;
  float sums[kLanes] = {};
  const size_t dim = weight.size();
  size_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  float sum = 0.0F;
  for (const float lane_sum : sums) sum += lane_sum;
  for (; i < dim; ++i) sum += x[i] * x[i];
  const float scale = 1.0F / std::sqrt(sum / static_cast<float>(dim) + eps);
  for (size_t d = 0; d < dim; ++d) out[d] = x[d] * scale * weight[d];
}

}  // namespace

void rms_norm(tensor::ConstMatrix x, std::span<const float> weight, float eps, tensor::Matrix out) {
  NANOCP_CHECK_EQ(x.cols, static_cast<int64_t>(weight.size()));
  NANOCP_CHECK_EQ(x.rows, out.rows);
  NANOCP_CHECK_EQ(x.cols, out.cols);
  for (int64_t r = 0; r < x.rows; ++r) norm_row(x.row(r), weight, eps, out.row(r));
}

void rms_norm_heads(tensor::Matrix x, int num_heads, std::span<const float> weight, float eps) {
  const auto head_dim = static_cast<int64_t>(weight.size());
  NANOCP_CHECK_EQ(x.cols, num_heads * head_dim);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int h = 0; h < num_heads; ++h) {
      float* head = x.row(r) + h * head_dim;
      norm_row(head, weight, eps, head);
    }
  }
}

}  // namespace nanocp::ops
