#include "apps/chrome_trace.h"

#include <nlohmann/json.hpp>

namespace nanocp::apps {

std::string chrome_trace(const std::vector<std::vector<engine::PhaseSpan>>& spans) {
  nlohmann::json events = nlohmann::json::array();
  for (size_t instance = 0; instance < spans.size(); ++instance) {
    events.push_back({{"ph", "M"},
                      {"name", "process_name"},
                      {"pid", instance},
                      {"args", {{"name", "instance " + std::to_string(instance)}}}});
    for (const engine::PhaseSpan& span : spans[instance]) {
      events.push_back({{"ph", "X"},
                        {"name", to_string(span.phase)},
                        {"pid", instance},
                        {"tid", 0},
                        {"ts", span.start_us},
                        {"dur", span.duration_us},
                        {"args", {{"layer", span.layer}}}});
    }
  }
  return nlohmann::json({{"traceEvents", std::move(events)}}).dump() + "\n";
}

}  // namespace nanocp::apps
