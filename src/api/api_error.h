// What a client is told when its request fails, in the form of OpenAI's API. Plain data, any
// thread.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/result.h"

namespace nanocp::api {

struct ApiError {
  int status = 400;  // of HTTP
  std::string message;
  std::string type = "invalid_request_error";
  std::string param = {};  // the field that is wrong, e.g. "messages[2].content"; empty: null
  std::string code = {};   // a word for programs, e.g. "context_length_exceeded"; empty: null
};

// {"error":{"message","type","param","code"}}
std::string to_json(const ApiError& error);

// A failure of another folder as the client may see it: what the client's input caused is a 400, a
// full queue a 429, all else a 500 or 503.
ApiError from_error(const Error& error, std::string param = {});

// A request that the engine can never run: 400, whatever it lacks.
ApiError from_refusal(const Error& error);

// 404 for a path or a method that the server does not have.
ApiError no_such_route(const std::string& method, const std::string& path);

// 404 for a model that is not served.
ApiError model_not_found(const std::string& name);

// A value, or what to tell the client.
template <typename T>
using ApiResult = std::variant<T, ApiError>;

// Null if there is a value.
template <typename T>
const ApiError* error_of(const ApiResult<T>& result) {
  return std::get_if<ApiError>(&result);
}

}  // namespace nanocp::api
