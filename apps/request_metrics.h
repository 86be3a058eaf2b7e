// Metrics of requests as JSON, the same for simulated and measured loads. Pure functions.
#pragma once

#include <nlohmann/json.hpp>

#include "sim/metrics.h"

namespace nanocp::apps {

nlohmann::json class_json(const sim::ClassMetrics& metrics);
// An object by name of the class.
nlohmann::json by_class_json(const sim::Metrics& metrics);
nlohmann::json objectives_json(const sim::Objectives& objectives);

}  // namespace nanocp::apps
