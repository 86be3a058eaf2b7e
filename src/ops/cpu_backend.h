// What ops/ asks of the CPU backend, which implements it in backend/cpu. Arguments have been
// checked.
#pragma once

#include "ops/attention.h"
#include "ops/context.h"
#include "tensor/matrix.h"
#include "tensor/weight.h"

namespace nanocp::cpu {

void linear(const ops::Context& context, tensor::ConstMatrix x, const tensor::WeightView& w,
            tensor::Matrix out);

// out[c] = w[row, c]; out [w.cols].
void decode_row(const tensor::WeightView& w, int64_t row, std::span<float> out);

void paged_attention(const ops::Context& context, const ops::AttentionArgs& args);

}  // namespace nanocp::cpu
