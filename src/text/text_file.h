// Small files that are read whole. Pure functions.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/result.h"

namespace nanocp::text {

// The error names the file: there is none, it is larger than `size_bytes_max`, or reading failed.
Result<std::string> read_text_file(const std::filesystem::path& path, int64_t size_bytes_max);

}  // namespace nanocp::text
