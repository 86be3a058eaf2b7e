// What a checkpoint's generation_config.json says of sampling: the defaults of requests that do not
// set a parameter. Pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nanocp::api {

// Those of OpenAI's API where the file does not set one.
struct SamplingDefaults {
  float temperature = 1.0F;
  float top_p = 1.0F;
  int32_t top_k = 0;
  float min_p = 0.0F;
  float repetition_penalty = 1.0F;
  int32_t max_tokens = 0;  // max_new_tokens; 0: not set
};

// Without such a file in the folder: the defaults.
Result<SamplingDefaults> load_sampling_defaults(const std::filesystem::path& model_dir);

// `name` stands for the file in messages.
Result<SamplingDefaults> parse_sampling_defaults(std::string_view json_text,
                                                 const std::string& name);

}  // namespace nanocp::api
