// Root-mean-square norm (Zhang and Sennrich, 2019).
#pragma once

#include <span>

#include "ops/context.h"
#include "tensor/matrix.h"

namespace nanocp::ops {

// out[i, :] = x[i, :] / sqrt(mean(x[i, :]^2) + eps) * weight. May run in place.
// x, out [num_rows, dim]; weight [dim].
void rms_norm(tensor::ConstMatrix x, std::span<const float> weight, float eps, tensor::Matrix out);

// The same over each of the `num_heads` slices of head_dim = weight.size() columns of a row.
void rms_norm_heads(tensor::Matrix x, int num_heads, std::span<const float> weight, float eps);

}  // namespace nanocp::ops
