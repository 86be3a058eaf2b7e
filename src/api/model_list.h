// Answers of /v1/models and /v1/models/{id}. Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>

#include "api/api_error.h"
#include "api/model_context.h"

namespace nanocp::api {

// {"object":"list","data":[...]}
std::string list_models(const ModelContext& context);

// 404 if no model is served under `id`.
ApiResult<std::string> describe_model(std::string_view id, const ModelContext& context);

}  // namespace nanocp::api
