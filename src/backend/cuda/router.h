// The router's product of a MoE layer, from the residual stream: the normed rows are not rounded to
// bf16 on the way, since which experts a row goes to hangs on small differences
// (docs/benchmarks/2026-11-25-h100-decode.md says what rounding there costs). Device memory of the
// current device; nothing synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_step.h"
#include "base/result.h"

namespace nanocp::cuda {

// logits[r, e] = sum_k rms_norm(residual[r, :])[k] * norm_weight[k] * weight[e, k].
struct RouterArgs {
  const StepHeader* header = nullptr;
  int32_t rows = 0;    // bucket
  int32_t hidden = 0;  // a multiple of 8
  int32_t num_experts = 0;
  const float* residual = nullptr;     // [rows, hidden]
  const float* norm_weight = nullptr;  // [hidden]
  float eps = 0.0F;
  const void* weight = nullptr;  // bf16 [num_experts, hidden]
  float* logits = nullptr;       // [rows, num_experts]
};
Status launch_router(const RouterArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
