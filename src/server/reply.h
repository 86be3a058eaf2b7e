// Answers as the API gives them. Any thread.
#pragma once

#include <memory>
#include <string>

#include "api/api_error.h"
#include "http/response.h"

namespace nanocp::server {

void reply_json(http::Response& response, int status, std::string body);

// With Retry-After where trying again helps, and WWW-Authenticate where a key is missing.
void reply_error(http::Response& response, const api::ApiError& error);

// An error that HTTP itself has: a wrong request, a limit of the connection.
std::string http_error_body(int status, const std::string& message);

}  // namespace nanocp::server
