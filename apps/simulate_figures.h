// The charts of simulated runs, from the document that `nanocp simulate --json` writes. Pure
// functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/page_figures.h"

namespace nanocp::apps {

// Policies against each other: over rates if there are several, else at the one; or at the rate
// that was found for each.
std::vector<Figure> overview_figures(const nlohmann::json& document);
// One run.
std::vector<Figure> run_figures(const nlohmann::json& document, const nlohmann::json& run);

// Whether the largest rates were searched for. Each run is then at the rate that was found.
bool is_search(const nlohmann::json& document);
// Values of a field of all runs, each once, in their order.
std::vector<std::string> policies_of(const nlohmann::json& document);
std::vector<double> rates_of(const nlohmann::json& document);
// Names of the parts of a step and their fields in a run's `mean_phases` and `timeline`.
struct StepPart {
  const char* field;
  const char* name;
  bool is_per_instance;
};
const std::vector<StepPart>& step_parts();

}  // namespace nanocp::apps
