// Two JSON schemas made into one that holds where both do. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace nanocp::grammar {

// Requires: neither has $ref or allOf at its top. Properties and items that both have become an
// allOf. What cannot be joined is an error that names the keyword.
Result<nlohmann::ordered_json> join_schemas(const nlohmann::ordered_json& a,
                                            const nlohmann::ordered_json& b,
                                            const std::string& path);

}  // namespace nanocp::grammar
