// Where a server is, from a URL such as http://127.0.0.1:8000/v1. Plain data; pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace nanocp::http_client {

struct Url {
  std::string host;         // a name or an address; that of IPv6 without its brackets
  std::string port = "80";  // decimal
  std::string path;         // "" or "/v1": begins with a slash, does not end with one

  // For the Host header: the port where it is not 80, brackets around an IPv6 address.
  std::string host_header() const;
};

// Errors say what a URL looks like. https is refused: there is no TLS here.
Result<Url> parse_url(std::string_view text);

}  // namespace nanocp::http_client
