// The one place that knows the tensor names of each family. visit_weights() walks every weight a
// spec needs in checkpoint order; what happens to each (listing, loading) is the visitor's affair.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/model_spec.h"
#include "model/model_weights.h"

namespace nanocp::model {

enum class WeightRole {
  kEmbedding,   // table of the input tokens, perhaps the output projection too
  kPlain,       // never quantised: output projection, router
  kProjection,  // fp8 in fp8 checkpoints
  kExpert,      // a routed expert's matrix: fp8 likewise
};

struct LinearRequest {
  std::string name;  // without ".weight" and ".bias"
  int64_t rows = 0;
  int64_t cols = 0;
  bool bias = false;
  WeightRole role = WeightRole::kProjection;
};

// gpt-oss keeps a layer's experts in two tensors each of weights and biases, with the rows of gate
// and up interleaved: gate is even, up is odd.
struct FusedExpertsRequest {
  std::string prefix;  // "model.layers.0.mlp.experts"
  int64_t num_experts = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  bool bias = false;
  bool mxfp4 = false;
};

class WeightVisitor {
 public:
  virtual ~WeightVisitor() = default;
  virtual Status linear(const LinearRequest& request, LinearWeights& out) = 0;
  // A vector that is used as float32 whatever it is stored in.
  virtual Status vector(const std::string& name, int64_t size, std::vector<float>& out) = 0;
  // DeepSeek's kv_b_proj, [heads * (nope + v), kv_lora_rank], split into `k_up` and `v_up`.
  virtual Status latent_up(const LinearRequest& request, const AttentionSpec& attention,
                           MlaWeights& out) = 0;
  virtual Status fused_experts(const FusedExpertsRequest& request,
                               std::vector<GatedMlpWeights>& out) = 0;
};

// Stops at the visitor's first error. With tied embeddings lm_head is a copy of the embedding view.
Status visit_weights(const ModelSpec& spec, WeightVisitor& visitor, ModelWeights& weights);

}  // namespace nanocp::model
