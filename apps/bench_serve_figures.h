// The charts of loads on a server, from the document that `nanocp bench serve --json` writes. Pure
// functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "apps/page_figures.h"

namespace nanocp::apps {

// The runs against each other, where they are at several rates or concurrencies.
std::vector<Figure> serve_overview_figures(const nlohmann::json& document);
// One run.
std::vector<Figure> serve_run_figures(const nlohmann::json& document, const nlohmann::json& run);

}  // namespace nanocp::apps
