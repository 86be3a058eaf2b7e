// Gated activations between the two halves of an MLP.
#pragma once

#include "tensor/matrix.h"

namespace nanocp::ops {

enum class Activation {
  kSwiglu,         // silu(gate) * up
  kClampedSwiglu,  // gpt-oss: (up + 1) * gate * sigmoid(1.702 gate), gate <= 7, |up| <= 7
};

// gate := activation(gate, up), element by element. gate, up [num_rows, intermediate].
void gated_activation(Activation activation, tensor::Matrix gate, tensor::ConstMatrix up);

}  // namespace nanocp::ops
