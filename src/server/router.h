// Which function answers which path, and who may ask: keys, methods, origins of browsers. Routes
// are added before the first request; from then on any thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"
#include "http/response.h"

namespace nanocp::server {

using RouteHandler =
    std::function<void(const http::Request&, const std::shared_ptr<http::Response>&)>;

struct Route {
  std::string method;  // GET also answers HEAD
  std::string path;    // "/v1/models"; with a '*' at its end all that begins like it
  RouteHandler handler;
  bool is_open = false;  // needs no key
};

struct RouterOptions {
  std::vector<std::string> api_keys;         // none: nobody needs one
  std::vector<std::string> allowed_origins;  // of pages that browsers let read answers; "*": all
};

class Router {
 public:
  explicit Router(RouterOptions options);

  void add(Route route);
  // 401 without a key, 404, 405, 415 (a body that is not JSON), OPTIONS, or the route's answer.
  void handle(const http::Request& request, const std::shared_ptr<http::Response>& response) const;
  const std::vector<Route>& routes() const { return routes_; }
  // The path of the route that answers `path`; "other" if there is none. For metrics, whose labels
  // must be few.
  std::string route_path(std::string_view path) const;

 private:
  std::vector<const Route*> find(std::string_view path) const;
  void answer_options(const http::Request& request, const std::vector<const Route*>& routes,
                      http::Response& response) const;
  void allow_origin(const http::Request& request, http::Response& response) const;
  bool has_key(const http::Request& request) const;

  const RouterOptions options_;
  std::vector<Route> routes_;
};

// Whether `given` is one of `keys`, in a time that does not depend on how far they are alike.
bool is_one_of(std::string_view given, const std::vector<std::string>& keys);

}  // namespace nanocp::server
