#include "api/api_error.h"

#include <nlohmann/json.hpp>

namespace nanocp::api {
namespace {

using nlohmann::ordered_json;

ordered_json text_or_null(const std::string& text) {
  return text.empty() ? ordered_json() : ordered_json(text);
}

}  // namespace

std::string to_json(const ApiError& error) {
  const ordered_json document = {{"error",
                                  {{"message", error.message},
                                   {"type", error.type},
                                   {"param", text_or_null(error.param)},
                                   {"code", text_or_null(error.code)}}}};
  return document.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

ApiError from_error(const Error& error, std::string param) {
  const auto made = [&](int status, const char* type, const char* code) {
    return ApiError{.status = status,
                    .message = error.message,
                    .type = type,
                    .param = std::move(param),
                    .code = code};
  };
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
    case ErrorCode::kNotFound:
      return made(400, "invalid_request_error", "");
    case ErrorCode::kResourceExhausted:
      return made(429, "rate_limit_error", "rate_limit_exceeded");
    case ErrorCode::kAborted:
      return made(503, "service_unavailable_error", "service_unavailable");
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kInternal:
      return made(500, "internal_server_error", "internal_error");
  }
  return made(500, "internal_server_error", "internal_error");
}

ApiError from_refusal(const Error& error) {
  ApiError result{.message = error.message};
  if (error.code == ErrorCode::kResourceExhausted) result.code = "context_length_exceeded";
  return result;
}

ApiError no_such_route(const std::string& method, const std::string& path) {
  return {.status = 404,
          .message = "there is no " + method + " " + path + " here",
          .code = "unknown_url"};
}

ApiError model_not_found(const std::string& name) {
  return {.status = 404,
          .message = "the model `" + name + "` does not exist: GET /v1/models lists those served",
          .param = "model",
          .code = "model_not_found"};
}

}  // namespace nanocp::api
