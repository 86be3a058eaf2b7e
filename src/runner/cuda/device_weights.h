// The weights of one instance on its GPU: attention, dense and shared MLPs, embedding and LM head
// in full as bf16 (formats of the checkpoint are converted on the way up), and its share of the
// experts, packed in bf16, fp8 or mxfp4; norms and biases as float32. Owned by the instance;
// immutable after loading.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/device_arena.h"
#include "backend/cuda/expert_mlp.h"
#include "base/result.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "runner/device/expert_formats.h"

namespace nanocp::runner {

struct DeviceLinear {
  const void* weight = nullptr;  // bf16 [rows, cols]
  const float* bias = nullptr;   // [rows] or null
  int64_t rows = 0;
  int64_t cols = 0;
};

struct DeviceMlp {
  DeviceLinear gate_up;  // gate rows, then up rows
  DeviceLinear down;
};

struct DeviceLayerWeights {
  const float* input_norm = nullptr;
  const float* post_attention_norm = nullptr;
  DeviceLinear qkv;  // GQA: q, k and v rows; MLA: q (latent or full), then kv latent rows
  const float* q_norm = nullptr;  // GQA: per head; MLA: of the query latent
  const float* k_norm = nullptr;  // GQA: per head; MLA: of the kv latent
  const float* sinks = nullptr;
  DeviceLinear q_b;            // MLA with a query latent
  const void* k_up = nullptr;  // MLA: bf16 [heads, kv_lora_rank, nope]
  const void* v_up = nullptr;  // MLA: bf16 [heads, v_head_dim, kv_lora_rank]
  DeviceLinear o;
  DeviceMlp dense;   // layers without experts
  DeviceMlp shared;  // shared experts; no weight if none
  DeviceLinear router;
  const float* correction_bias = nullptr;
  cuda::ExpertWeights experts = {};
};

struct DeviceWeights {
  explicit DeviceWeights(const std::string& name) : arena(name) {}

  const void* embedding = nullptr;  // bf16 [vocab, hidden]
  std::vector<DeviceLayerWeights> layers;
  const float* final_norm = nullptr;
  DeviceLinear lm_head;
  cuda::DeviceArena arena;
};

struct DeviceLoadOptions {
  InstanceId instance = 0;
  int32_t num_instances = 1;
  uint64_t dummy_seed = 1;
  int num_threads = 4;
  const ExpertFormats* expert_formats = nullptr;  // outlives the loading
  std::function<void(int64_t bytes)> done;        // bytes on the GPU since the last call
};

// Bytes of all weights on GPUs: one copy of what is replicated, and all experts as they are packed.
model::WeightBytes count_device_bytes(const model::ModelSpec& spec, const ExpertFormats& formats);

// Loads to the current device. `weights` null: dummy weights of the spec's shapes, made there.
Result<std::unique_ptr<DeviceWeights>> load_device_weights(const model::ModelSpec& spec,
                                                           const model::ModelWeights* weights,
                                                           const DeviceLoadOptions& options);

}  // namespace nanocp::runner
