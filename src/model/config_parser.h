// config.json of a Hugging Face checkpoint -> ModelSpec, for every supported family and in both
// key styles (`rope_parameters`, `dtype`, `num_local_experts`; or `rope_theta`, `rope_scaling`,
// `torch_dtype`, `num_experts`). A spec that comes out is consistent: sizes are in range, products
// fit, and no two keys contradict each other. Pure functions but for read_config, any thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/model_spec.h"

namespace nanocp::model {

// Errors start with `file_name` and name the key.
Result<ModelSpec> parse_config(std::string_view json_text, const std::string& file_name);

// A config file under any name, or a directory with a config.json.
Result<ModelSpec> read_config(const std::filesystem::path& file);

// The tokens that end a text: those of generation_config.json where the directory has one that
// names any, otherwise the spec's.
Result<std::vector<TokenId>> read_eos_token_ids(const std::filesystem::path& model_dir,
                                                const ModelSpec& spec);

}  // namespace nanocp::model
