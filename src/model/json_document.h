// JSON text from a file nobody vouches for -> a document, with bounded nesting and no duplicate
// keys. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace nanocp::model {

constexpr int kJsonDepthMax = 64;

// Errors are one line that starts with `file_name`. Numbers out of range, bytes that are not UTF-8,
// nesting above kJsonDepthMax and a key given twice in one object are errors.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& file_name);

// The parser's own account of what is wrong, as one printable line.
std::string describe_json_error(const nlohmann::json::exception& error);

}  // namespace nanocp::model
