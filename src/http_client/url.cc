#include "http_client/url.h"

#include <algorithm>
#include <charconv>

namespace nanocp::http_client {
namespace {

Error bad_url(std::string_view text, const char* why) {
  std::string message = "URL '";
  message += text;
  message += "': ";
  message += why;
  message += "; write it as in http://127.0.0.1:8000";
  return invalid_argument(std::move(message));
}

bool is_port(std::string_view text) {
  int port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 1 && port <= 65535;
}

// Splits "host:port", "[::1]:port" or either without its port.
Status parse_authority(std::string_view text, std::string_view whole, Url& url) {
  size_t colon = text.rfind(':');
  if (text.starts_with('[')) {
    const size_t close = text.find(']');
    if (close == std::string_view::npos) return bad_url(whole, "the closing ] is missing");
    url.host = text.substr(1, close - 1);
    colon = close + 1 < text.size() ? close + 1 : std::string_view::npos;
    if (colon != std::string_view::npos && text[colon] != ':') {
      return bad_url(whole, "only a port may follow the address");
    }
  } else {
    url.host = text.substr(0, colon);
  }
  if (url.host.empty()) return bad_url(whole, "it has no host");
  if (colon == std::string_view::npos) return ok_status();
  url.port = text.substr(colon + 1);
  if (!is_port(url.port)) return bad_url(whole, "the port is no number from 1 to 65535");
  return ok_status();
}

}  // namespace

std::string Url::host_header() const {
  std::string text = host.find(':') == std::string::npos ? host : "[" + host + "]";
  if (port != "80") text += ":" + port;
  return text;
}

Result<Url> parse_url(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) {
    return unsupported("URL '" + std::string(text) +
                       "': https is not supported; give the server's plain http address, or put a "
                       "proxy that ends TLS in front of it");
  }
  if (!text.starts_with(kScheme)) return bad_url(text, "it does not begin with http://");
  const auto is_odd = [](char c) { return static_cast<unsigned char>(c) <= ' ' || c == '\x7f'; };
  if (std::any_of(text.begin(), text.end(), is_odd)) return bad_url(text, "it holds a space");
  if (text.find_first_of("?#@") != std::string_view::npos) {
    return bad_url(text, "a user, a query or a fragment has no place in it");
  }
  const std::string_view rest = text.substr(kScheme.size());
  const size_t slash = std::min(rest.find('/'), rest.size());
  Url url;
  NANOCP_RETURN_IF_ERROR(parse_authority(rest.substr(0, slash), text, url));
  url.path = rest.substr(slash);
  while (url.path.ends_with('/')) url.path.pop_back();
  return url;
}

}  // namespace nanocp::http_client
