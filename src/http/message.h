// A request as a handler sees it, and header fields. Plain data.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace nanocp::http {

struct Header {
  std::string name;
  std::string value;
};

// In the order of the message; a name may come more than once.
using Headers = std::vector<Header>;

// The first field of that name, whatever its case; null if there is none.
const std::string* find_header(const Headers& headers, std::string_view name);

struct Request {
  std::string method;  // "GET"
  std::string path;    // "/v1/models/a b": percent escapes are resolved
  std::string query;   // what follows '?', as it came; empty if there is none
  Headers headers;
  std::string body;
  std::string remote;  // "127.0.0.1:40312"
  std::string id;      // x-request-id: the client's if it is fit to be printed, else a new one

  const std::string* header(std::string_view name) const { return find_header(headers, name); }
};

// "Not Found"; empty for a status that has no name here.
std::string_view reason_phrase(int status);

}  // namespace nanocp::http
