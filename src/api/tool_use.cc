#include "api/tool_use.h"

#include <atomic>
#include <random>

#include "base/random.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

// Another one each time, also after a restart.
uint64_t next_id_seed() {
  static const uint64_t kStart = (uint64_t{std::random_device()()} << 32U) | std::random_device()();
  static std::atomic<uint64_t> count = 0;
  return counter_random(kStart, count++);
}

// Whether `tools` has a function of that name.
bool has_tool(const Json& tools, const std::string& name) {
  for (const Json& tool : tools) {
    if (tool["function"]["name"] == name) return true;
  }
  return false;
}

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

}  // namespace

ToolUse read_tool_use(BodyReader& body, Json& tools) {
  ToolUse use = read_tool_choice(body, tools);
  use.parallel = body.boolean("parallel_tool_calls", true);
  if (use.choice == ToolChoice::kNone) tools = Json();
  return use;
}

std::optional<WantedFormat> forced_format(const ToolUse& use, const Json& tools) {
  if (use.choice != ToolChoice::kRequired && use.choice != ToolChoice::kNamed) return {};
  Json schema = forced_tool_schema(tools, use.named);
  if (use.choice == ToolChoice::kRequired && !use.parallel) schema["maxItems"] = 1;
  return WantedFormat{
      .name = "tool_choice",
      .format = {.kind = grammar::ResponseFormat::Kind::kJsonSchema, .text = schema.dump()}};
}

std::vector<std::unique_ptr<OutputParser>> make_parsers(const ToolUse& use,
                                                        const Conversation& conversation,
                                                        const std::string& prompt, int32_t count,
                                                        const ModelContext& context) {
  std::vector<std::unique_ptr<OutputParser>> parsers;
  const bool is_plain = context.output_format.reasoning == ReasoningFormat::kNone &&
                        context.output_format.tool_calls != ToolCallFormat::kHarmony &&
                        use.choice == ToolChoice::kNone;
  if (is_plain) return parsers;
  for (int32_t i = 0; i < count; ++i) {
    parsers.push_back(
        make_output_parser({.format = context.output_format,
                            .tool_choice = use.choice,
                            .named_tool = use.named,
                            .parallel_tool_calls = use.parallel,
                            .tools = conversation.tools.is_null() ? nullptr : &conversation.tools,
                            .rendered_prompt = prompt,
                            .id_seed = next_id_seed()}));
  }
  return parsers;
}

std::vector<TokenId> parser_tokens(const ModelContext& context) {
  std::vector<TokenId> tokens;
  for (const std::string_view content : format_tokens(context.output_format)) {
    if (const auto token = context.tokenizer->token_id(content)) tokens.push_back(*token);
  }
  return tokens;
}

std::vector<TokenId> end_of_reasoning(const OutputParser& parser, const ModelContext& context) {
  const bool is_harmony = context.output_format.reasoning == ReasoningFormat::kHarmony;
  if (!is_harmony && !parser.in_reasoning()) return {};
  // A gpt-oss answer always opens channels; the last one is for the reader.
  return context.tokenizer->encode(is_harmony ? "<|channel|>final<|message|>" : "</think>",
                                   {.allow_special = true, .add_special = false});
}

}  // namespace nanocp::api
