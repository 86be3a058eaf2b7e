// The findings of `nanocp inspect`, and how they are shown. Plain data.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/memory_estimate.h"
#include "model/model_spec.h"

namespace nanocp::apps {

struct LongestRequest {
  int32_t degree;
  int64_t num_tokens;
};

struct Inspection {
  std::string config_file;
  model::ModelSpec spec;
  int32_t num_instances = 1;
  model::ParameterCount parameters;
  model::WeightBytes weight_bytes;
  int64_t kv_bytes_per_token = 0;
  // With a given memory only.
  model::InstanceMemory memory;
  int64_t kv_tokens_per_instance = 0;
  std::vector<LongestRequest> longest;  // by degree, up to one that reaches the model's limit
};

struct InspectionRequest {
  std::string config_file;
  int32_t num_instances = 1;
  model::InstanceMemory memory;  // size 0: not given
};

Inspection inspect_model(const model::ModelSpec& spec, const InspectionRequest& request);

std::string inspection_text(const Inspection& inspection);
nlohmann::json inspection_json(const Inspection& inspection);

}  // namespace nanocp::apps
