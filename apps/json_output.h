// JSON documents as commands print them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace nanocp::apps {

// Indented, with a new line at the end. Bytes that are not UTF-8 become U+FFFD.
inline std::string json_text(const nlohmann::json& document) {
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace nanocp::apps
