// Transposed copies of weight matrices. F32, F16 and BF16 keep their format (and may start at any
// address); fp8 becomes float32, because its blocks do not survive the turn. Pure functions.
#pragma once

#include <cstdint>

#include "tensor/weight.h"

namespace nanocp::model {

// Requires for all: source is F32, F16, BF16 or fp8.
int64_t transposed_bytes(const tensor::WeightView& source);

// What transpose_weight(source, target) makes there: [source.cols, source.rows].
tensor::WeightView transposed_view(const tensor::WeightView& source, const uint8_t* target);

void transpose_weight(const tensor::WeightView& source, uint8_t* target);

}  // namespace nanocp::model
