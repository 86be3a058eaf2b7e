// A step's timeline for chrome://tracing and Perfetto.
#pragma once

#include <string>
#include <vector>

#include "engine/model_runner.h"

namespace nanocp::apps {

// The trace-event form (JSON object with traceEvents): a process per instance, a complete event per
// span, times in microseconds from each instance's own start.
std::string chrome_trace(const std::vector<std::vector<engine::PhaseSpan>>& spans);

}  // namespace nanocp::apps
