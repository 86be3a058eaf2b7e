#include "api/answer_json.h"

#include "api/json_text.h"

namespace nanocp::api {

using request::FinishReason;

namespace {

void append_member(const char* name, std::string_view text, std::string& out) {
  out += name;
  append_string(text, out);
}

// The members of a call up to the brace that ends it.
void append_tool_call(std::string_view id, std::string_view name, std::string_view arguments,
                      std::string& out) {
  if (!id.empty()) {
    append_member("\"id\":", id, out);
    out += ",\"type\":\"function\",";
  }
  out += "\"function\":{";
  if (!name.empty()) {
    append_member("\"name\":", name, out);
    out.push_back(',');
  }
  append_member("\"arguments\":", arguments, out);
  out += "}}";
}

const char* finish_word(const Choice& choice) {
  switch (choice.finish_reason) {
    case FinishReason::kNone:
      return "null";
    case FinishReason::kStop:
      return choice.parser != nullptr && choice.parser->has_tool_calls() ? "\"tool_calls\""
                                                                         : "\"stop\"";
    case FinishReason::kLength:
      return "\"length\"";
    case FinishReason::kCancelled:
      return "\"abort\"";
    case FinishReason::kError:
      return "\"error\"";
  }
  return "null";
}

}  // namespace

void append_delta(const OutputDelta& delta, std::string& out) {
  out.push_back('{');
  const size_t start = out.size();
  if (!delta.reasoning_content.empty()) {
    append_member("\"reasoning_content\":", delta.reasoning_content, out);
  }
  if (!delta.content.empty()) {
    append_comma(start, out);
    append_member("\"content\":", delta.content, out);
  }
  if (!delta.tool_calls.empty()) {
    append_comma(start, out);
    out += "\"tool_calls\":[";
    const size_t first = out.size();
    for (const ToolCallDelta& call : delta.tool_calls) {
      append_comma(first, out);
      out += "{\"index\":";
      append_number(call.index, out);
      out.push_back(',');
      append_tool_call(call.id, call.name, call.arguments, out);
    }
    out.push_back(']');
  }
  out.push_back('}');
}

void append_message(const Choice& choice, std::string& out) {
  out += ",\"message\":{\"role\":\"assistant\",\"content\":";
  if (choice.content.empty() && !choice.tool_calls.empty()) {
    out += "null";
  } else {
    append_string(choice.content, out);
  }
  out += ",\"refusal\":null";
  if (!choice.reasoning.empty()) append_member(",\"reasoning_content\":", choice.reasoning, out);
  if (!choice.tool_calls.empty()) {
    out += ",\"tool_calls\":[";
    const size_t start = out.size();
    for (const ToolCall& call : choice.tool_calls) {
      append_comma(start, out);
      out.push_back('{');
      append_tool_call(call.id, call.name, call.arguments, out);
    }
    out.push_back(']');
  }
  out.push_back('}');
}

void append_end(const Choice& choice, std::string& out) {
  out += ",\"finish_reason\":";
  out += finish_word(choice);
  out += ",\"stop_reason\":";
  if (choice.text.stopped()) {
    append_string(choice.text.stop_string(), out);
  } else if (choice.stop_token != kNoToken) {
    append_number(choice.stop_token, out);
  } else {
    out += "null";
  }
}

void append_usage(const Usage& usage, std::string& out) {
  out += "{\"prompt_tokens\":";
  append_number(usage.num_prompt_tokens, out);
  out += ",\"completion_tokens\":";
  append_number(usage.num_output_tokens, out);
  out += ",\"total_tokens\":";
  append_number(usage.num_prompt_tokens + usage.num_output_tokens, out);
  out.push_back('}');
}

}  // namespace nanocp::api
