// JSON documents as commands print them, and files of results.
#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "base/result.h"

namespace nanocp::apps {

// Indented, with a new line at the end. Bytes that are not UTF-8 become U+FFFD.
inline std::string json_text(const nlohmann::json& document) {
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Replaces the file; fails, naming it, where it cannot be written.
inline Status write_file(const std::string& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary);
  out << text;
  out.close();
  if (out.good()) return ok_status();
  return Error{ErrorCode::kInternal, file + ": cannot be written"};
}

}  // namespace nanocp::apps
