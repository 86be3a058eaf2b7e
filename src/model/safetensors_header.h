// The JSON part of a safetensors file as a list of entries, offsets still relative to the data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/safetensors.h"

namespace nanocp::model {

// Checks the form of the JSON only: known types, whole non-negative numbers, every field once.
Result<std::vector<TensorEntry>> parse_safetensors_header(std::string_view header,
                                                          const std::string& file_name);

}  // namespace nanocp::model
