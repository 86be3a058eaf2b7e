// JSON as template values. Pure function.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"
#include "text/jinja/value.h"

namespace nanocp::text::jinja {

// Keeps the order of keys. The error names the place inside `name`, e.g. "messages[0].content":
// nested deeper than `depth_max`, or an integer outside of 64 bits.
Result<Value> from_json(const nlohmann::ordered_json& json, const std::string& name,
                        int32_t depth_max);

}  // namespace nanocp::text::jinja
