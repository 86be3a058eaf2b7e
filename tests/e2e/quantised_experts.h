// Puts the experts of a fixture into block fp8 or mxfp4 in memory, as checkpoints of those formats
// hold them, for tests that need such weights in shapes that no small checkpoint has.
#pragma once

#include "e2e/test_model.h"
#include "tensor/weight.h"

namespace nanocp::e2e {

// The model with experts in `format`, kFp8Block (128 x 128 scales) or kMxfp4 (rows of gate and up
// by turns, as gpt-oss stores them), and the spec that says so; deterministic. The golden cases
// stay those of the unquantised weights.
TestModel quantise_experts(const TestModel& model, tensor::WeightFormat format);

// The golden cases, answered anew by the CPU runner on the model's own weights.
std::vector<GoldenCase> cpu_cases(const TestModel& model);

}  // namespace nanocp::e2e
