// Parts a model's answer into what the reader sees, reasoning and tool calls, as the text comes.
// What comes out does not depend on how the text was cut into pushes; only how it is cut into
// deltas does. An OutputFormat is chosen once for a model; an OutputParser belongs to one answer
// and one thread. No failure: what is not a call by the rules of its format is content, word for
// word, until its name and the start of its arguments were read; from then on the arguments are
// passed on as the model wrote them, valid JSON or not. Text is held back up to kHeldBytesMax.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nanocp::api {

// The first delta of a call has id and name, the others are a piece of the arguments, which never
// ends within a character or a JSON escape.
struct ToolCallDelta {
  int32_t index = 0;
  std::string id;
  std::string name;
  std::string arguments;
};

struct OutputDelta {
  std::string content;
  std::string reasoning_content;
  std::vector<ToolCallDelta> tool_calls;  // by index, at most one of each

  bool empty() const { return content.empty() && reasoning_content.empty() && tool_calls.empty(); }
};

// How a model writes its thoughts and its calls.
enum class ReasoningFormat {
  kNone,
  kThinkTags,   // <think>...</think>, opened by the model or by the prompt
  kThinkFirst,  // likewise, but an answer starts with thoughts unless the prompt has closed them
  kHarmony,     // gpt-oss: the channel analysis
};
enum class ToolCallFormat {
  kNone,
  kHermes,       // <tool_call>{"name", "arguments"}</tool_call>: Qwen3
  kQwen3Coder,   // <tool_call><function=NAME><parameter=KEY>...
  kDeepseekV3,   // DeepSeek V3 and R1: function, separator, name, fenced JSON
  kDeepseekV31,  // name, separator, JSON
  kHarmony,      // gpt-oss: the recipient functions.NAME
  kKimiK2,       // functions.NAME:INDEX, JSON
  kGlm45,        // <tool_call>NAME<arg_key>...<arg_value>...
  kMistral,      // [TOOL_CALLS][{"name", "arguments"}] or [TOOL_CALLS]NAME[ARGS]{...}
};

struct OutputFormat {
  ReasoningFormat reasoning = ReasoningFormat::kNone;
  ToolCallFormat tool_calls = ToolCallFormat::kNone;
};

// The format by the names of --tool-call-parser (hermes, qwen3_coder, deepseek_v3, deepseek_v31,
// openai, kimi_k2, glm45, mistral) and --reasoning-parser (qwen3, deepseek_r1, deepseek_v3, glm45,
// kimi_k2, openai_gptoss); "none" switches one off. "auto" has `chat_template` render a call and
// looks at what it wrote, and at whether the tokenizer knows </think>; null: there is none.
Result<OutputFormat> choose_output_format(std::string_view tool_call_parser,
                                          std::string_view reasoning_parser,
                                          const text::ChatTemplate* chat_template,
                                          const text::Tokenizer& tokenizer);

// The name of each half as its flag takes it.
std::string_view to_string(ReasoningFormat format);
std::string_view to_string(ToolCallFormat format);

// Special tokens that the format is written with: the detokenizer must show these to the parser
// even where special tokens are skipped. The parser removes them; other special tokens are content
// to it.
std::vector<std::string_view> format_tokens(const OutputFormat& format);

// What the request asks for, in terms of tool_choice.
enum class ToolChoice {
  kNone,      // calls are not looked for
  kAuto,      // calls in the model's own format
  kRequired,  // the answer is constrained to a list of calls: see forced_tool_schema
  kNamed,     // the answer is constrained to the arguments of OutputParserOptions::named_tool
};

struct OutputParserOptions {
  OutputFormat format;
  ToolChoice tool_choice = ToolChoice::kNone;
  std::string_view named_tool;
  bool parallel_tool_calls = true;  // false: calls after the first are dropped
  // The list of a request as OpenAI writes it; null: none. Tells formats without types which
  // arguments are strings.
  const nlohmann::ordered_json* tools = nullptr;
  // Of the conversation: what it opened (<think>, a channel) goes on in the answer. Empty: nothing.
  std::string_view rendered_prompt;
  uint64_t id_seed = 0;  // ids of calls are drawn from it
};

// What tool_choice "required" (named_tool empty) or a named tool asks of the answer after its
// reasoning, as JSON schema: the arguments of the tool, or a list of objects with "name" and
// "parameters". Requires: `tools` is a list of OpenAI's form that has `named_tool`.
nlohmann::ordered_json forced_tool_schema(const nlohmann::ordered_json& tools,
                                          std::string_view named_tool);

class OutputParser {
 public:
  // What is held back at most of one answer before it is shown one way or the other.
  static constexpr size_t kHeldBytesMax = 65536;

  virtual ~OutputParser() = default;
  // What `text`, whole characters of the answer, settles.
  virtual OutputDelta push(std::string_view text) = 0;
  // The end of the answer: all that was held back.
  virtual OutputDelta flush() = 0;

  // Whether a call has come out: the finish reason is then tool_calls.
  virtual bool has_tool_calls() const = 0;
  // Whether the answer is in its reasoning: constraints on content do not hold yet.
  virtual bool in_reasoning() const = 0;
};

// Options are read before it returns.
std::unique_ptr<OutputParser> make_output_parser(const OutputParserOptions& options);

}  // namespace nanocp::api
