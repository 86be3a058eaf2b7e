// Bodies of /tokenize and /detokenize, in vLLM's form, and their answers. Pure functions, any
// thread.
#pragma once

#include <string>
#include <string_view>

#include "api/api_error.h"
#include "api/model_context.h"

namespace nanocp::api {

// {"prompt"} or {"messages"} -> {"count","max_model_len","tokens","token_strs"}
ApiResult<std::string> answer_tokenize(std::string_view body, const ModelContext& context);

// {"tokens"} -> {"prompt"}
ApiResult<std::string> answer_detokenize(std::string_view body, const ModelContext& context);

}  // namespace nanocp::api
