// From what a user calls a model to its config file.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace nanocp::apps {

// `model` is a directory with a config.json, a config file, or the name of a bundled config (such
// as "qwen3-30b-a3b"), looked for beside the program and above it, then in the source tree.
Result<std::filesystem::path> find_model_config(const std::string& model);

}  // namespace nanocp::apps
