// docs/openapi.json names the routes that the server has, no more and no fewer, and which of them
// need no key.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <ostream>
#include <regex>
#include <set>
#include <string>
#include <tuple>

#include "server/app.h"
#include "server/observability_routes.h"

namespace nanocp::server {
namespace {

using nlohmann::json;

// Method, path, whether it needs no key.
using RouteSet = std::set<std::tuple<std::string, std::string, bool>>;

RouteSet routes_of_server() {
  const SteadyClock clock;
  const Observability observability(ClusterInfo(), clock, nullptr);
  App app(AppOptions{});
  add_observability_routes(app, observability);
  RouteSet routes;
  for (const Route& route : app.router().routes()) {
    routes.emplace(route.method, route.path, route.is_open);
  }
  return routes;
}

RouteSet routes_of_file() {
  RouteSet routes;
  const json document = json::parse(std::ifstream("docs/openapi.json"));
  for (const auto& [path, item] : document["paths"].items()) {
    for (const auto& [method, operation] : item.items()) {
      std::string name = method;
      std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c - 'a' + 'A'; });
      const bool is_open = operation.contains("security") && operation["security"].empty();
      routes.emplace(name, std::regex_replace(path, std::regex(R"(\{[^}]*\}$)"), "*"), is_open);
    }
  }
  return routes;
}

TEST(OpenApi, RoutesAreThoseOfTheServer) {
  EXPECT_EQ(routes_of_file(), routes_of_server());
  EXPECT_GT(routes_of_server().size(), 10U);
}

}  // namespace
}  // namespace nanocp::server
