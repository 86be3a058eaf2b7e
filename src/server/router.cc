#include "server/router.h"

#include <algorithm>
#include <utility>

#include "server/reply.h"

namespace nanocp::server {
namespace {

bool matches(const Route& route, std::string_view path) {
  if (!route.path.ends_with('*')) return route.path == path;
  return path.starts_with(std::string_view(route.path).substr(0, route.path.size() - 1));
}

bool answers(const Route& route, std::string_view method) {
  return route.method == method || (route.method == "GET" && method == "HEAD");
}

std::string methods_of(const std::vector<const Route*>& routes) {
  std::string methods;
  for (const Route* route : routes) {
    methods.append(route->method).append(route->method == "GET" ? ", HEAD, " : ", ");
  }
  return methods + "OPTIONS";
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

// "application/json; charset=utf-8" too. Other types are those that a page of any origin may send
// without asking first.
bool is_json(const http::Request& request) {
  const std::string* type = request.header("Content-Type");
  if (type == nullptr) return true;
  const std::string_view whole(*type);
  std::string_view name = whole.substr(0, whole.find(';'));
  while (name.ends_with(' ')) name.remove_suffix(1);
  return equal_ignoring_case(name, "application/json");
}

// Looks at every byte of the longer one, whatever they are.
bool equal_in_constant_time(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  for (size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
    const char x = i < a.size() ? a[i] : '\0';
    const char y = i < b.size() ? b[i] : '\0';
    difference |= static_cast<unsigned char>(x) ^ static_cast<unsigned char>(y);
  }
  return difference == 0;
}

}  // namespace

bool is_one_of(std::string_view given, const std::vector<std::string>& keys) {
  bool found = false;
  for (const std::string& key : keys) found = equal_in_constant_time(given, key) || found;
  return found;
}

Router::Router(RouterOptions options) : options_(std::move(options)) {}

void Router::add(Route route) {
  routes_.push_back(std::move(route));
}

std::vector<const Route*> Router::find(std::string_view path) const {
  std::vector<const Route*> found;
  for (const Route& route : routes_) {
    if (matches(route, path)) found.push_back(&route);
  }
  return found;
}

std::string Router::route_path(std::string_view path) const {
  const auto found = find(path);
  return found.empty() ? "other" : found.front()->path;
}

void Router::handle(const http::Request& request,
                    const std::shared_ptr<http::Response>& response) const {
  allow_origin(request, *response);
  const auto routes = find(request.path);
  if (request.method == "OPTIONS") return answer_options(request, routes, *response);
  const auto route = std::find_if(routes.begin(), routes.end(), [&](const Route* candidate) {
    return answers(*candidate, request.method);
  });
  const bool is_open = route != routes.end() && (*route)->is_open;
  if (!is_open && !has_key(request)) {
    return reply_error(*response,
                       {.status = 401,
                        .message = "a key is missing or wrong: send Authorization: Bearer KEY",
                        .type = "authentication_error",
                        .code = "invalid_api_key"});
  }
  if (routes.empty()) {
    return reply_error(*response, api::no_such_route(request.method, request.path));
  }
  if (route == routes.end()) {
    response->add_header({"Allow", methods_of(routes)});
    return reply_error(*response, {.status = 405,
                                   .message = request.path + " does not take " + request.method +
                                              ": use " + methods_of(routes),
                                   .code = "method_not_allowed"});
  }
  if (request.method == "POST" && !is_json(request)) {
    return reply_error(*response,
                       {.status = 415,
                        .message = "the body must be JSON: send Content-Type: application/json",
                        .code = "unsupported_media_type"});
  }
  const std::string* coding = request.header("Content-Encoding");
  if (coding != nullptr && !equal_ignoring_case(*coding, "identity")) {
    return reply_error(*response, {.status = 415,
                                   .message = "Content-Encoding " + *coding +
                                              " is not supported: send the body as it is",
                                   .code = "unsupported_media_type"});
  }
  (*route)->handler(request, response);
}

// What a browser asks before it sends a page's request, too.
void Router::answer_options(const http::Request& request, const std::vector<const Route*>& routes,
                            http::Response& response) const {
  if (routes.empty() && request.path != "*") {
    return reply_error(response, api::no_such_route(request.method, request.path));
  }
  http::Headers headers = {{"Allow", methods_of(routes)}};
  if (!options_.allowed_origins.empty()) {
    headers.push_back({"Access-Control-Allow-Methods", methods_of(routes)});
    headers.push_back(
        {"Access-Control-Allow-Headers", "Authorization, Content-Type, x-request-id"});
    headers.push_back({"Access-Control-Max-Age", "600"});
  }
  response.send(204, std::move(headers), {});
}

void Router::allow_origin(const http::Request& request, http::Response& response) const {
  if (options_.allowed_origins.empty()) return;
  response.add_header({"Vary", "Origin"});
  const std::string* origin = request.header("Origin");
  if (origin == nullptr) return;
  const auto& allowed = options_.allowed_origins;
  const bool is_allowed = std::any_of(allowed.begin(), allowed.end(), [&](const auto& candidate) {
    return candidate == "*" || candidate == *origin;
  });
  if (!is_allowed) return;
  response.add_header({"Access-Control-Allow-Origin", *origin});
  response.add_header({"Access-Control-Expose-Headers", "x-request-id, Retry-After"});
}

bool Router::has_key(const http::Request& request) const {
  if (options_.api_keys.empty()) return true;
  const std::string* field = request.header("Authorization");
  constexpr std::string_view kScheme = "Bearer ";
  if (field == nullptr || !equal_ignoring_case(field->substr(0, kScheme.size()), kScheme)) {
    return false;
  }
  return is_one_of(std::string_view(*field).substr(kScheme.size()), options_.api_keys);
}

}  // namespace nanocp::server
