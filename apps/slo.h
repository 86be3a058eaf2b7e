// Objectives on the command line: "tpot=50ms,ttft=2s,percentile=99". Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace nanocp::apps {

// A time that may be named, and where it goes, in microseconds.
struct SloTime {
  std::string_view name;
  double* value_us;
};

// Sets what is named and leaves the rest. `percentile` is a share. Errors name --slo.
Status parse_slo_list(std::string_view text, const std::vector<SloTime>& times, double& percentile);

}  // namespace nanocp::apps
