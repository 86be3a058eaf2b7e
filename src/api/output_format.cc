// Which format a model writes its answers in: by name, or by what its template does with a call.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "api/output_parser.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

template <typename Format>
struct Named {
  std::string_view name;
  Format format;
};

using ToolCallName = Named<ToolCallFormat>;
constexpr std::array kToolCallNames = {
    ToolCallName{"none", ToolCallFormat::kNone},
    ToolCallName{"hermes", ToolCallFormat::kHermes},
    ToolCallName{"qwen3_coder", ToolCallFormat::kQwen3Coder},
    ToolCallName{"deepseek_v3", ToolCallFormat::kDeepseekV3},
    ToolCallName{"deepseek_v31", ToolCallFormat::kDeepseekV31},
    ToolCallName{"openai", ToolCallFormat::kHarmony},
    ToolCallName{"kimi_k2", ToolCallFormat::kKimiK2},
    ToolCallName{"glm45", ToolCallFormat::kGlm45},
    ToolCallName{"mistral", ToolCallFormat::kMistral},
};

using ReasoningName = Named<ReasoningFormat>;
// Of several names the first is the one that is shown.
constexpr std::array kReasoningNames = {
    ReasoningName{"none", ReasoningFormat::kNone},
    ReasoningName{"qwen3", ReasoningFormat::kThinkTags},
    ReasoningName{"deepseek_v3", ReasoningFormat::kThinkTags},
    ReasoningName{"glm45", ReasoningFormat::kThinkTags},
    ReasoningName{"kimi_k2", ReasoningFormat::kThinkTags},
    ReasoningName{"deepseek_r1", ReasoningFormat::kThinkFirst},
    ReasoningName{"openai_gptoss", ReasoningFormat::kHarmony},
};

template <typename Names>
auto find_name(const Names& names, std::string_view name) {
  return std::find_if(names.begin(), names.end(),
                      [name](const auto& entry) { return entry.name == name; });
}

template <typename Names, typename Format>
std::string_view name_of(const Names& names, Format format) {
  return std::find_if(names.begin(), names.end(),
                      [format](const auto& entry) { return entry.format == format; })
      ->name;
}

template <typename Names>
Error unknown_name(const Names& names, std::string_view flag, std::string_view name) {
  std::string message(flag);
  message.append(" ").append(name).append(" is not known; choose one of auto");
  for (const auto& entry : names) message.append(", ").append(entry.name);
  return invalid_argument(std::move(message));
}

constexpr std::string_view kProbe = "nanocp_probe";

// A conversation with a call of kProbe. Templates differ in what they take: content that is null or
// empty, arguments as an object or as its text.
Json probe_messages(bool null_content, bool text_arguments) {
  const Json arguments = {{"key", "value"}};
  const Json function = {
      {"name", kProbe},
      {"arguments", text_arguments ? Json(arguments.dump()) : arguments},
  };
  return {
      {{"role", "user"}, {"content", "?"}},
      {{"role", "assistant"},
       {"content", null_content ? Json(nullptr) : Json("")},
       {"tool_calls",
        Json::array({{{"id", "probe0000"}, {"type", "function"}, {"function", function}}})}},
  };
}

// What the template makes of a call, or nothing.
std::string render_call(const text::ChatTemplate& chat_template) {
  const Json tools = Json::array(
      {{{"type", "function"},
        {"function",
         {{"name", "other"}, {"description", "?"}, {"parameters", {{"type", "object"}}}}}}});
  for (const bool null_content : {true, false}) {
    for (const bool text_arguments : {true, false}) {
      const Result<std::string> rendered =
          chat_template.render(probe_messages(null_content, text_arguments), tools, Json(nullptr),
                               {.add_generation_prompt = false});
      if (rendered.ok() && rendered->find(kProbe) != std::string::npos) return *rendered;
    }
  }
  return {};
}

// What stands around the name of a call tells the format.
struct Signature {
  std::string_view before;
  std::string_view after;
  ToolCallFormat format;
};
constexpr std::array kSignatures = {
    Signature{"<tool_call>\n{\"name\": \"", "\"", ToolCallFormat::kHermes},
    Signature{"<function=", ">", ToolCallFormat::kQwen3Coder},
    Signature{"<｜tool▁sep｜>", "\n```json", ToolCallFormat::kDeepseekV3},
    Signature{"<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", ToolCallFormat::kDeepseekV31},
    Signature{"to=functions.", "<|channel|>commentary", ToolCallFormat::kHarmony},
    Signature{"<|tool_call_begin|>functions.", ":0<|tool_call_argument_begin|>",
              ToolCallFormat::kKimiK2},
    Signature{"<tool_call>", "", ToolCallFormat::kGlm45},
};

ToolCallFormat recognize_calls(const text::ChatTemplate& chat_template) {
  const std::string rendered = render_call(chat_template);
  const std::string_view text = rendered;
  const size_t at = text.find(kProbe);
  if (at == std::string_view::npos) return ToolCallFormat::kNone;
  const std::string_view before = text.substr(0, at);
  const std::string_view after = text.substr(at + kProbe.size());
  for (const Signature& signature : kSignatures) {
    if (before.ends_with(signature.before) && after.starts_with(signature.after)) {
      return signature.format;
    }
  }
  constexpr std::string_view kMistralMarker = "[TOOL_CALLS]";
  return before.find(kMistralMarker) != std::string_view::npos ? ToolCallFormat::kMistral
                                                               : ToolCallFormat::kNone;
}

}  // namespace

Result<OutputFormat> choose_output_format(std::string_view tool_call_parser,
                                          std::string_view reasoning_parser,
                                          const text::ChatTemplate* chat_template,
                                          const text::Tokenizer& tokenizer) {
  OutputFormat format;
  const bool is_harmony = tokenizer.token_id("<|channel|>") && tokenizer.token_id("<|message|>");
  if (tool_call_parser == "auto") {
    if (chat_template != nullptr) format.tool_calls = recognize_calls(*chat_template);
  } else {
    const auto* named = find_name(kToolCallNames, tool_call_parser);
    if (named == kToolCallNames.end()) {
      return unknown_name(kToolCallNames, "--tool-call-parser", tool_call_parser);
    }
    format.tool_calls = named->format;
  }
  if (reasoning_parser != "auto") {
    const auto* named = find_name(kReasoningNames, reasoning_parser);
    if (named == kReasoningNames.end()) {
      return unknown_name(kReasoningNames, "--reasoning-parser", reasoning_parser);
    }
    format.reasoning = named->format;
  } else if (format.tool_calls == ToolCallFormat::kHarmony || is_harmony) {
    format.reasoning = ReasoningFormat::kHarmony;
  } else if (tokenizer.token_id("</think>")) {
    format.reasoning = ReasoningFormat::kThinkTags;
  }
  const bool calls_differ = format.reasoning == ReasoningFormat::kHarmony &&
                            format.tool_calls != ToolCallFormat::kHarmony &&
                            format.tool_calls != ToolCallFormat::kNone;
  const bool reasoning_differs = format.tool_calls == ToolCallFormat::kHarmony &&
                                 format.reasoning != ReasoningFormat::kHarmony &&
                                 format.reasoning != ReasoningFormat::kNone;
  if (calls_differ || reasoning_differs) {
    return invalid_argument(
        "--tool-call-parser openai and --reasoning-parser openai_gptoss read one format; give "
        "both, "
        "or none for one of them");
  }
  return format;
}

std::string_view to_string(ReasoningFormat format) {
  return name_of(kReasoningNames, format);
}

std::string_view to_string(ToolCallFormat format) {
  return name_of(kToolCallNames, format);
}

}  // namespace nanocp::api
