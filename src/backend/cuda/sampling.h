// Next tokens from logits on the GPU, for rows without penalties, filters and log probabilities:
// greedy, and the draw of ops/sampling.h, both with the same choice as on the host, among all
// tokens or those of a mask. Rows that need
// more are skipped here and sampled on the host from copied logits. All pointers are device memory
// of the current device; nothing synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "backend/cuda/device_step.h"
#include "base/result.h"

namespace nanocp::cuda {

enum class SampleMode : int32_t {
  kGreedy,  // the largest logit, ties to the lowest id, NaN as -infinity
  kDraw,    // exponential race at `temperature`; below 1e-5: greedy
  kSkip,    // the row's token is not written
};

// Written by the host before each step.
struct SampleSpec {
  uint64_t random_bits = 0;  // counter_random(seed, index of the output token)
  float temperature = 0.0F;
  SampleMode mode = SampleMode::kGreedy;
  // Device memory, a bit for each token as in plan/token_mask.h, with words for the whole
  // vocabulary; tokens whose bit is not set are impossible. Null: all are possible.
  const uint32_t* allowed = nullptr;
};

struct SampleArgs {
  const StepHeader* header = nullptr;  // num_samples: the real rows
  int32_t num_samples = 0;             // bucket
  int32_t vocab_size = 0;
  const void* logits = nullptr;  // float or bf16, rows logits_stride elements apart
  int64_t logits_stride = 0;     // a multiple of 8
  bool bf16_logits = false;
  const SampleSpec* specs = nullptr;  // [num_samples]
  int32_t* tokens = nullptr;          // [num_samples]
  void* workspace = nullptr;          // sampling_workspace_bytes(num_samples), zero at first
};

// Bytes of the workspace for launches of up to `num_samples` rows. Zeroed once by the owner.
size_t sampling_workspace_bytes(int32_t num_samples);

Status launch_sample(const SampleArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
