// The page of `nanocp bench serve --html`. Pure functions, any thread.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanocp::apps {

// Of the document that `nanocp bench serve --json` writes.
std::string serve_page(const nlohmann::json& document);

}  // namespace nanocp::apps
