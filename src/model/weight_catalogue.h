// The tensors a checkpoint of a spec holds, without any file: for dummy weights, memory estimates
// and tests. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_spec.h"
#include "model/stored_type.h"

namespace nanocp::model {

enum class TensorKind {
  kEmbedding,
  kMatrix,
  kNorm,    // values near 1
  kBias,    // values near 0: biases, sinks, correction bias
  kScales,  // of a quantised matrix; holds no parameters of its own
};

struct CatalogueEntry {
  std::string name;
  StoredType type = StoredType::kBf16;
  std::vector<int64_t> shape;
  TensorKind kind = TensorKind::kMatrix;
  bool routed = false;         // belongs to routed experts, so instances share it out
  int64_t num_parameters = 0;  // two per byte for mxfp4
  int64_t size_bytes = 0;
  int64_t fan_in = 1;  // inputs per output of the matrix (or of the scaled matrix)
};

std::vector<CatalogueEntry> list_tensors(const ModelSpec& spec);

}  // namespace nanocp::model
