#include "http/request_target.h"

#include <cstddef>

namespace nanocp::http {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7F;
}

// "http://host/path" as "/path"; the host is that of the Host field or of nobody.
std::string_view without_origin(std::string_view target) {
  const size_t scheme = target.find("://");
  if (target.starts_with('/') || scheme == std::string_view::npos) return target;
  const size_t path = target.find('/', scheme + 3);
  return path == std::string_view::npos ? std::string_view("/") : target.substr(path);
}

}  // namespace

std::optional<std::string> percent_decode(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = hex_digit(text[i + 1]);
      const int low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (is_control(c)) return std::nullopt;
    result.push_back(c);
  }
  return result;
}

std::optional<Target> parse_target(std::string_view target) {
  if (target == "*") return Target{.path = "*", .query = {}};
  target = without_origin(target);
  if (!target.starts_with('/')) return std::nullopt;
  const std::string_view without_fragment = target.substr(0, target.find('#'));
  const size_t question = without_fragment.find('?');
  auto path = percent_decode(without_fragment.substr(0, question));
  if (!path) return std::nullopt;
  Target result{.path = std::move(*path), .query = {}};
  if (question != std::string_view::npos) result.query = without_fragment.substr(question + 1);
  return result;
}

}  // namespace nanocp::http
