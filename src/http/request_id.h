// Names of requests, for logs and for the client's own. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace nanocp::http {

// 32 hexadecimal digits, random.
std::string make_request_id();

// Whether a client's own id may go into logs and headers: 1 to 128 letters, digits and . _ - : / +
// =
bool is_request_id(std::string_view id);

}  // namespace nanocp::http
