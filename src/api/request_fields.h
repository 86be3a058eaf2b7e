// The fields that both endpoints have: sampling, length, stops and how the answer is written. Pure
// functions over a parsed body.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "api/body_reader.h"
#include "api/generation_request.h"
#include "api/model_context.h"

namespace nanocp::api {

struct RequestFields {
  request::Request request;  // but for prompt and max_tokens
  OutputOptions output;      // but for prompts and parsers
  std::optional<int64_t> seed;
  std::optional<int64_t> max_tokens;
  std::string max_tokens_name = "max_tokens";  // of the field that set it
};

// Complains unless the body names a served model, or none.
void check_model(BodyReader& body, const ModelContext& context);

// Also refuses, by name, what would change the answer and is not supported.
RequestFields read_request_fields(BodyReader& body, const ModelContext& context);

// Sets fields.max_tokens from a field that may be at least `low`.
void read_max_tokens(BodyReader& body, const std::string& name, int64_t low, RequestFields& fields);

// A prompt as it is known before the requests are made.
struct Prompt {
  std::string name;  // of the field, for messages
  std::vector<TokenId> tokens;
  std::string text = {};  // for echo
};

// One request per prompt and choice. `default_max_tokens` applies where the body does not set it,
// as far as there is room.
ApiResult<GenerationRequest> make_requests(RequestFields fields, std::vector<Prompt> prompts,
                                           int64_t default_max_tokens, const ModelContext& context);

// One line that names the fields that are not known; none if there are none.
std::vector<std::string> unknown_field_warnings(const std::vector<std::string>& names);

}  // namespace nanocp::api
