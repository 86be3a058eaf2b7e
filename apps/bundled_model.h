// Where the small model that comes with NanoCP is.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace nanocp::apps {

// The model's directory, looked for beside the program and above it, then in the source tree that
// it was built from.
Result<std::filesystem::path> find_bundled_model();

}  // namespace nanocp::apps
