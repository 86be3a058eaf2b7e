// In which format the experts of each layer lie on a GPU: as the checkpoint stores them where the
// expert kernels read that, else as bf16. Pure functions of the spec and the views, any thread; no
// GPU is needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/memory_estimate.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "tensor/weight.h"

namespace nanocp::runner {

enum class ExpertWeightsChoice {
  kAuto,    // as stored where the kernels read it, else bf16, with a note
  kStored,  // as stored, or an error
  kBf16,    // always converted
};

struct ExpertFormats {
  // [num_layers] kBf16, kFp8Block or kMxfp4; kBf16 for layers without experts.
  std::vector<tensor::WeightFormat> layers;
  std::string note;  // what is converted and why; empty if nothing is
};

// `weights` null: dummy ones, in the format of the spec.
Result<ExpertFormats> choose_expert_formats(const model::ModelSpec& spec,
                                            const model::ModelWeights* weights,
                                            ExpertWeightsChoice choice);

// Bytes on a GPU of all that every instance holds: matrices as bf16, vectors as float32.
int64_t replicated_device_bytes(const model::ModelSpec& spec);

// One line about the weights of the instance that holds most: bytes and forms.
std::string describe_weights(const model::ModelSpec& spec, const ExpertFormats& formats,
                             const model::WeightBytes& bytes, int32_t num_instances);

}  // namespace nanocp::runner
