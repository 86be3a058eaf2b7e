// Text inside HTML and XML. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace nanocp {

// `text` with the characters that mean something in markup as entities; `quote` is that of '"'.
inline std::string escape_markup(std::string_view text, std::string_view quote) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += quote;
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out.push_back(c);
    }
  }
  return out;
}

}  // namespace nanocp
