// Body of /v1/chat/completions.
#include <limits>
#include <optional>
#include <utility>

#include "api/body_reader.h"
#include "api/chat_messages.h"
#include "api/generation_request.h"
#include "api/request_fields.h"
#include "api/structured_output.h"
#include "api/tool_use.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

void read_logprobs(BodyReader& body, const ModelContext& context, RequestFields& fields) {
  const bool is_asked = body.boolean("logprobs", false);
  const auto num_top =
      static_cast<int32_t>(body.integer("top_logprobs", {0, context.limits.num_logprobs_max}, 0));
  if (num_top > 0 && !is_asked) body.fail("top_logprobs", "needs \"logprobs\": true");
  fields.output.num_logprobs = is_asked ? num_top : -1;
  fields.request.sampling.num_logprobs = fields.output.num_logprobs;
}

void read_modalities(BodyReader& body) {
  for (const std::string& kind : body.strings("modalities", 32, 8)) {
    if (kind != "text") body.fail("modalities", "may hold \"text\" only");
  }
}

ApiError no_chat_template() {
  return {.message = "the model has no chat template: use /v1/completions",
          .code = "unsupported_endpoint"};
}

std::vector<Prompt> one_prompt(const std::string& text, const ModelContext& context) {
  std::vector<Prompt> prompts;
  prompts.push_back({.name = "messages", .tokens = encode_rendered(text, context)});
  return prompts;
}

// What fits, unless the model's configuration has a limit.
int64_t default_max_tokens(const ModelContext& context) {
  return context.defaults.max_tokens > 0 ? context.defaults.max_tokens
                                         : std::numeric_limits<int32_t>::max();
}

}  // namespace

ApiResult<GenerationRequest> parse_chat_completion(std::string_view text,
                                                   const ModelContext& context) {
  if (context.chat_template == nullptr) return no_chat_template();
  ApiResult<Json> document = parse_body(text);
  if (const ApiError* error = error_of(document)) return *error;
  BodyReader body(std::get<Json>(document));
  RequestFields fields = read_request_fields(body, context);
  fields.output.endpoint = Endpoint::kChat;
  read_max_tokens(body, "max_tokens", 1, fields);
  read_max_tokens(body, "max_completion_tokens", 1, fields);
  read_logprobs(body, context, fields);
  read_modalities(body);
  Conversation conversation = read_conversation(body, context);
  const ToolUse tool_use = read_tool_use(body, conversation.tools);
  std::optional<WantedFormat> wanted = read_wanted_format(body, context);
  if (body.failed()) return body.error();

  ApiResult<std::string> rendered = render(conversation, context);
  if (const ApiError* error = error_of(rendered)) return *error;
  const std::string& prompt = std::get<std::string>(rendered);
  OutputOptions& output = fields.output;
  output.parsers = make_parsers(tool_use, conversation, prompt, output.n, context);
  if (!output.parsers.empty()) output.parser_tokens = parser_tokens(context);
  if (auto forced = forced_format(tool_use, conversation.tools)) wanted = std::move(forced);
  if (wanted) {
    if (!output.parsers.empty()) {
      wanted->format.starts_after = end_of_reasoning(*output.parsers.front(), context);
    }
    auto constraint = compile(*wanted, context);
    if (const ApiError* error = error_of(constraint)) return *error;
    fields.request.constraint = std::get<0>(std::move(constraint));
  }
  ApiResult<GenerationRequest> result = make_requests(
      std::move(fields), one_prompt(prompt, context), default_max_tokens(context), context);
  if (auto* request = std::get_if<GenerationRequest>(&result)) {
    request->warnings = unknown_field_warnings(body.unknown());
  }
  return result;
}

}  // namespace nanocp::api
