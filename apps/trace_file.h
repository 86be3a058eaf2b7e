// Request traces in files: CSV, compressed with gzip or not.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "sim/workload.h"

namespace nanocp::apps {

// Reads `arrival_s,input_tokens,output_tokens`; see sim::parse_trace. Errors name the file.
Result<std::vector<sim::Arrival>> read_trace(const std::string& file);

}  // namespace nanocp::apps
