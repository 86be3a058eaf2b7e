#include "server/reply.h"

#include <utility>

namespace nanocp::server {
namespace {

constexpr const char* kJson = "application/json";
constexpr const char* kRetryAfterSeconds = "1";

}  // namespace

void reply_json(http::Response& response, int status, std::string body) {
  response.send(status, {{"Content-Type", kJson}}, std::move(body));
}

void reply_error(http::Response& response, const api::ApiError& error) {
  http::Headers headers = {{"Content-Type", kJson}};
  if (error.status == 429 || error.status == 503) {
    headers.push_back({"Retry-After", kRetryAfterSeconds});
  }
  if (error.status == 401) headers.push_back({"WWW-Authenticate", "Bearer"});
  response.send(error.status, std::move(headers), api::to_json(error));
}

std::string http_error_body(int status, const std::string& message) {
  const char* type = status >= 500 ? "server_error" : "invalid_request_error";
  return api::to_json({.status = status, .message = message, .type = type});
}

}  // namespace nanocp::server
