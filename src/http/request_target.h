// The target of a request line: path and query. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace nanocp::http {

struct Target {
  std::string path;   // percent escapes are resolved; "*" of OPTIONS stays
  std::string query;  // as it came
};

// "/a%20b?c=d", "http://host/a%20b?c=d" or "*". Nothing for anything else: no path, a bad escape, a
// control character.
std::optional<Target> parse_target(std::string_view target);

// "a%20b" as "a b"; nothing for a bad escape or a control character.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace nanocp::http
