// Bodies of /v1/chat/completions and /v1/completions as plain structs: what the engine shall do,
// and how its answer is to be written. Pure functions, any thread; tokenising happens here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_error.h"
#include "api/model_context.h"
#include "api/output_parser.h"
#include "request/request.h"

namespace nanocp::api {

enum class Endpoint { kChat, kCompletion };

// A prompt as far as the answer tells of it.
struct PromptInfo {
  int64_t num_tokens = 0;
  std::vector<TokenId> token_ids = {};  // only if the answer needs them
  std::string text = {};                // likewise
};

// How the answers are written. Given to the ResponseWriter.
struct OutputOptions {
  Endpoint endpoint = Endpoint::kChat;
  bool stream = false;
  bool include_usage = false;     // a last chunk with the usage
  bool continuous_usage = false;  // usage in every chunk
  int32_t n = 1;                  // choices per prompt
  std::vector<PromptInfo> prompts;
  std::vector<std::string> stop;
  bool include_stop = false;  // a stop string is part of the text
  bool skip_special_tokens = true;
  int32_t min_tokens = 0;     // stop strings do not count before
  int32_t num_logprobs = -1;  // -1 none; k >= 0: the chosen token's and the k best
  bool return_token_ids = false;
  bool echo = false;         // the prompt is part of the text
  bool prompt_only = false;  // max_tokens is 0: the token that was sampled is not shown
  // [num_choices], or empty: the text is content as it is.
  std::vector<std::unique_ptr<OutputParser>> parsers;
  std::vector<TokenId> parser_tokens;  // special ones that the parsers need to see

  size_t num_choices() const { return prompts.size() * static_cast<size_t>(n); }
};

struct GenerationRequest {
  // Choice c of prompt p is requests[p * n + c]; that number is the choice's index everywhere.
  std::vector<request::Request> requests;
  OutputOptions output;
  std::vector<std::string> warnings = {};  // for the log, a line each; e.g. of unknown fields
};

ApiResult<GenerationRequest> parse_chat_completion(std::string_view body,
                                                   const ModelContext& context);
ApiResult<GenerationRequest> parse_completion(std::string_view body, const ModelContext& context);

}  // namespace nanocp::api
