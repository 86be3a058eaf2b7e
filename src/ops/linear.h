// y = x W^T + b, with W as stored (see tensor/weight.h) and float32 accumulation.
#pragma once

#include <span>

#include "ops/context.h"
#include "plan/ids.h"
#include "tensor/matrix.h"
#include "tensor/weight.h"

namespace nanocp::ops {

// out[m, n] = sum_k x[m, k] w[n, k] + bias[n]. `bias` is empty or [n].
// x [num_rows, w.cols], out [num_rows, w.rows]; out must not overlap x.
void linear(const Context& context, tensor::ConstMatrix x, const tensor::WeightView& w,
            std::span<const float> bias, tensor::Matrix out);
void linear_reference(tensor::ConstMatrix x, const tensor::WeightView& w,
                      std::span<const float> bias, tensor::Matrix out);

// out[i] = w[ids[i]] as float32. Requires: 0 <= ids[i] < w.rows. out [ids.size(), w.cols].
void gather_rows(const tensor::WeightView& w, std::span<const TokenId> ids, tensor::Matrix out);

// One element, decoded one at a time: the definition of each format.
float weight_element(const tensor::WeightView& w, int64_t row, int64_t col);

}  // namespace nanocp::ops
