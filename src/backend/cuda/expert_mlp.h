// The experts of one MoE layer on one GPU: gated MLPs over the assignments of an expert plan, whose
// counts are read on the GPU. bf16 weights and rows, float32 accumulation. All pointers are device
// memory of the current device; nothing synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/expert_plan.h"
#include "base/result.h"
#include "ops/activation.h"

namespace nanocp::cuda {

struct ExpertShape {
  int32_t hidden = 0;        // a multiple of 16
  int32_t intermediate = 0;  // a multiple of 16
  int32_t num_experts = 0;   // held on this GPU
  bool has_bias = false;
};

// Packed weights of all experts of a layer. A matrix is stored in the order in which tensor-core
// products take it: tiles of 16 rows x 16 columns, by row and then by column, each as the 16 bytes
// of each of a warp's 32 lanes. Rows of gate and up alternate in groups of 8, so that one thread
// gets both halves of a value.
struct ExpertWeights {
  ExpertShape shape;
  const void* gate_up = nullptr;        // [experts][2 * intermediate, hidden]
  const void* down = nullptr;           // [experts][hidden, intermediate]
  const float* gate_up_bias = nullptr;  // [experts][gate | up], null without bias
  const float* down_bias = nullptr;     // [experts][hidden], null without bias
};

int64_t expert_weight_bytes(const ExpertShape& shape);
// Views of `packed`, which holds expert_weight_bytes(shape) bytes at an address that is a multiple
// of 256.
ExpertWeights expert_weights_at(const ExpertShape& shape, void* packed);

struct PackExpertArgs {
  ExpertShape shape;
  const void* gate = nullptr;  // bf16 [intermediate, hidden]
  const void* up = nullptr;    // bf16 [intermediate, hidden]
  const void* down = nullptr;  // bf16 [hidden, intermediate]
  void* packed = nullptr;      // of all experts
  int32_t expert = 0;
};
Status launch_pack_expert(const PackExpertArgs& args, cudaStream_t stream);

struct ExpertMlpArgs {
  ExpertWeights weights;
  ops::Activation activation = ops::Activation::kSwiglu;
  ExpertLists lists;        // with tiles of expert_tile_rows(shape) rows
  const void* x = nullptr;  // bf16 [rows, hidden], by row id
  void* h = nullptr;        // bf16 [max_assignments, intermediate], scratch
  void* y = nullptr;        // bf16 [max_assignments, hidden]
};
// Rows that one product takes at once.
int32_t expert_tile_rows(const ExpertShape& shape);
Status launch_expert_mlp(const ExpertMlpArgs& args, cudaStream_t stream);

}  // namespace nanocp::cuda
