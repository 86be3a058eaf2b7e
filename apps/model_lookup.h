// From what a user calls a model or a hardware profile to its file.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace nanocp::apps {

// `model` is a directory with a config.json, a config file, or the name of a bundled config (such
// as "qwen3-30b-a3b"), looked for beside the program and above it, then in the source tree.
Result<std::filesystem::path> find_model_config(const std::string& model);

// `profile` is a file, or the name of a bundled profile (such as "h100-nvlink"), looked for in the
// same places.
Result<std::filesystem::path> find_profile(const std::string& profile);

}  // namespace nanocp::apps
