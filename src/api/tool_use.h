// Which tools an answer may call, and who finds the calls and the reasoning in its text. Pure
// functions over a parsed body, but for the ids of calls, which are never the same twice.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/body_reader.h"
#include "api/chat_messages.h"
#include "api/model_context.h"
#include "api/output_parser.h"
#include "api/structured_output.h"

namespace nanocp::api {

struct ToolUse {
  ToolChoice choice = ToolChoice::kNone;
  std::string named = {};
  bool parallel = true;
};

// Reads tool_choice and parallel_tool_calls. Without a choice to call them, tools are not shown to
// the model.
ToolUse read_tool_use(BodyReader& body, nlohmann::ordered_json& tools);

// What a choice that must call a tool asks of the answer.
std::optional<WantedFormat> forced_format(const ToolUse& use, const nlohmann::ordered_json& tools);

// A parser per choice; none where the text is content as it is. `prompt` is the rendered one.
std::vector<std::unique_ptr<OutputParser>> make_parsers(const ToolUse& use,
                                                        const Conversation& conversation,
                                                        const std::string& prompt, int32_t count,
                                                        const ModelContext& context);

// Special tokens that parsers need to see.
std::vector<TokenId> parser_tokens(const ModelContext& context);

// What ends the reasoning that the answer starts with: a form holds from there on. Empty if it
// starts with none.
std::vector<TokenId> end_of_reasoning(const OutputParser& parser, const ModelContext& context);

}  // namespace nanocp::api
