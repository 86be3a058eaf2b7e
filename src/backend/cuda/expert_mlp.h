// The experts of one MoE layer on one GPU: gated MLPs over the assignments of an expert plan, whose
// counts are read on the GPU. Weights in bf16, block fp8 or mxfp4, which are multiplied as they
// are; bf16 rows, float32 accumulation. All pointers are device memory of the current device;
// nothing synchronises with the host, and everything may be captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/expert_plan.h"
#include "base/result.h"
#include "ops/activation.h"
#include "tensor/weight.h"

namespace nanocp::cuda {

struct ExpertShape {
  int32_t hidden = 0;        // a multiple of 32
  int32_t intermediate = 0;  // a multiple of 32
  int32_t num_experts = 0;   // held on this GPU
  bool has_bias = false;
  tensor::WeightFormat format = tensor::WeightFormat::kBf16;  // or kFp8Block, kMxfp4
};

// Packed weights of all experts of a layer. A matrix is stored in the order in which tensor-core
// products take it: pairs of operands, 16 rows x 32 columns, by row and then by column, each in the
// order of a warp's lanes and with its scales (expert_weight_formats.cuh). Rows of gate and up
// alternate in groups of 8, so that both halves of a value are in the same pair.
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
// Of plain bf16 matrices.
Status launch_pack_expert(const PackExpertArgs& args, cudaStream_t stream);

// Views of device memory in the format of the shape. Scales of kFp8Block are by blocks of a
// multiple of 8 rows, which begin at multiples of 8 rows, and of a multiple of 32 columns. Views of
// kBf16 are aligned to 4 bytes.
struct PackExpertViewsArgs {
  ExpertShape shape;
  tensor::WeightView gate;  // [intermediate, hidden]
  tensor::WeightView up;    // [intermediate, hidden]
  tensor::WeightView down;  // [hidden, intermediate]
  void* packed = nullptr;   // of all experts
  int32_t expert = 0;
};
Status launch_pack_expert_views(const PackExpertViewsArgs& args, cudaStream_t stream);

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
