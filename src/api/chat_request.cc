// Body of /v1/chat/completions.
#include <limits>
#include <utility>

#include "api/body_reader.h"
#include "api/chat_messages.h"
#include "api/generation_request.h"
#include "api/request_fields.h"

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

// Whether `tools` has a function of that name.
bool has_tool(const Json& tools, const std::string& name) {
  for (const Json& tool : tools) {
    if (tool["function"]["name"] == name) return true;
  }
  return false;
}

struct ToolUse {
  ToolChoice choice = ToolChoice::kNone;
  std::string named = {};
  bool parallel = true;
};

ToolUse named_tool(BodyReader& body, const Json& value, const Json& tools) {
  const Json function = value.is_object() ? value.value("function", Json()) : Json();
  const Json name = function.is_object() ? function.value("name", Json()) : Json();
  if (!name.is_string()) {
    body.fail("tool_choice",
              "must be \"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": "
              "{\"name\": ...}}");
    return {};
  }
  if (!has_tool(tools, name.get<std::string>())) {
    body.fail("tool_choice.function.name", "is none of the tools");
  }
  return {.choice = ToolChoice::kNamed, .named = name.get<std::string>()};
}

ToolUse read_tool_choice(BodyReader& body, const Json& tools) {
  const Json* value = body.find("tool_choice");
  if (value == nullptr || *value == "auto") {
    return {.choice = tools.is_null() ? ToolChoice::kNone : ToolChoice::kAuto};
  }
  if (*value == "none") return {};
  if (tools.is_null()) {
    body.fail("tool_choice", "needs tools");
    return {};
  }
  if (*value == "required") return {.choice = ToolChoice::kRequired};
  return named_tool(body, *value, tools);
}

ToolUse read_tool_use(BodyReader& body, Json& tools) {
  ToolUse use = read_tool_choice(body, tools);
  use.parallel = body.boolean("parallel_tool_calls", true);
  if (use.choice == ToolChoice::kNone) tools = Json();
  return use;
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
  if (body.failed()) return body.error();

  ApiResult<std::string> prompt = render(conversation, context);
  if (const ApiError* error = error_of(prompt)) return *error;
  std::vector<Prompt> prompts;
  prompts.push_back(
      {.name = "messages", .tokens = encode_rendered(std::get<std::string>(prompt), context)});
  const int64_t default_max_tokens = context.defaults.max_tokens > 0
                                         ? context.defaults.max_tokens
                                         : std::numeric_limits<int32_t>::max();
  ApiResult<GenerationRequest> result =
      make_requests(std::move(fields), std::move(prompts), default_max_tokens, context);
  if (auto* request = std::get_if<GenerationRequest>(&result)) {
    request->warnings = unknown_field_warnings(body.unknown());
  }
  return result;
}

}  // namespace nanocp::api
