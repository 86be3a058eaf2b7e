// JSON written straight into a string: what is written once per token is too often for a document.
// Pure functions.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "plan/ids.h"

namespace nanocp::api {

// `text` as the inside of a JSON string. Requires: valid UTF-8.
inline void append_escaped(std::string_view text, std::string& out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 0x20 && c != '"' && c != '\\') {
      out.push_back(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (byte >= 0x20) {
      out.push_back('\\');
      out.push_back(c);
    } else {
      out += "\\u00";
      out.push_back(kHex[byte >> 4U]);
      out.push_back(kHex[byte & 0xfU]);
    }
  }
}

// With quotes.
inline void append_string(std::string_view text, std::string& out) {
  out.push_back('"');
  append_escaped(text, out);
  out.push_back('"');
}

template <typename Number>
void append_number(Number value, std::string& out) {
  std::array<char, 32> text;
  out.append(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
}

// JSON has no infinity; -9999 is what vLLM writes.
inline void append_logprob(float logprob, std::string& out) {
  append_number(std::isfinite(logprob) ? logprob : -9999.0F, out);
}

// Written between elements of a list that starts at `start` in `out`.
inline void append_comma(size_t start, std::string& out) {
  if (out.size() > start) out.push_back(',');
}

// [1,2,3]
inline void append_ids(std::span<const TokenId> ids, std::string& out) {
  out.push_back('[');
  const size_t start = out.size();
  for (const TokenId id : ids) {
    append_comma(start, out);
    append_number(id, out);
  }
  out.push_back(']');
}

}  // namespace nanocp::api
