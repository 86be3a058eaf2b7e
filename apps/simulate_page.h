// The page and the picture of simulated runs, from the document that `nanocp simulate --json`
// writes. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanocp::apps {

// HTML that needs no other file and no network.
std::string simulation_page(const nlohmann::json& document);
// SVG in light colours.
std::string simulation_picture(const nlohmann::json& document);

}  // namespace nanocp::apps
