// Row-wise kernels between the matrix products of a layer: embedding, residual sum and norm, gated
// activation, and the gather before the head. The residual stream is float, what products read is
// bf16. A launch covers a bucket of rows; how many of them are real is read on the GPU, and the
// others are left as they are. All pointers are device memory of the current device, aligned to 16
// bytes; nothing synchronises with the host, and everything may be captured. Calls fail on shapes
// that the kernels do not cover, before anything is enqueued.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/device_step.h"
#include "base/result.h"
#include "ops/activation.h"

namespace nanocp::cuda {

constexpr int32_t kNormHiddenMax = 8192;  // values of a normed row at most; a multiple of 8

// residual[r, :] = embedding[token_ids[r], :], x[r, :] = rms_norm(residual[r, :]) * norm_weight.
struct EmbedNormArgs {
  const StepHeader* header = nullptr;
  int32_t rows = 0;  // bucket
  int32_t hidden = 0;
  int32_t vocab_size = 0;              // ids outside of it read the nearest one
  const int32_t* token_ids = nullptr;  // [rows]; -1 - i: what `sampled` has at i
  const int32_t* sampled = nullptr;    // by the step before
  const void* embedding = nullptr;     // bf16 [vocab_size, hidden]
  const float* norm_weight = nullptr;  // [hidden]
  float eps = 0.0F;
  float* residual = nullptr;  // [rows, hidden]
  void* x = nullptr;          // bf16, rows x_stride elements apart
  int64_t x_stride = 0;
};
Status launch_embed_norm(const EmbedNormArgs& args, cudaStream_t stream);

// residual[r, :] += delta[r, :] + bias, x[r, :] = rms_norm(residual[r, :]) * norm_weight.
struct AddNormArgs {
  const StepHeader* header = nullptr;
  int32_t rows = 0;  // bucket
  int32_t hidden = 0;
  const void* delta = nullptr;  // bf16, rows delta_stride elements apart; null: nothing is added
  int64_t delta_stride = 0;
  const float* bias = nullptr;         // [hidden] or null
  const float* norm_weight = nullptr;  // [hidden]
  float eps = 0.0F;
  float* residual = nullptr;  // [rows, hidden]
  void* x = nullptr;          // bf16, rows x_stride elements apart; null: only the sum
  int64_t x_stride = 0;
};
Status launch_add_norm(const AddNormArgs& args, cudaStream_t stream);

// out[i, :] = rms_norm(residual[sample_rows[i], :]) * norm_weight for the step's samples.
struct GatherNormArgs {
  const StepHeader* header = nullptr;
  int32_t num_samples = 0;  // bucket
  int32_t hidden = 0;
  const int32_t* sample_rows = nullptr;  // [num_samples]
  const float* residual = nullptr;       // [*, hidden]
  const float* norm_weight = nullptr;    // [hidden]
  float eps = 0.0F;
  void* out = nullptr;  // bf16 [num_samples, hidden]
};
Status launch_gather_norm(const GatherNormArgs& args, cudaStream_t stream);

// out[r, i] = activation(gate_up[r, i], gate_up[r, intermediate + i]).
struct GatedActivationArgs {
  const StepHeader* header = nullptr;
  int32_t rows = 0;          // bucket
  int32_t intermediate = 0;  // a multiple of 8
  ops::Activation activation = ops::Activation::kSwiglu;
  const void* gate_up = nullptr;  // bf16, 2 * intermediate values a row
  int64_t gate_up_stride = 0;     // elements, a multiple of 8
  const float* bias = nullptr;    // [2 * intermediate], added first, or null
  void* out = nullptr;            // bf16
  int64_t out_stride = 0;         // elements, a multiple of 8
};
Status launch_gated_activation(const GatedActivationArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
