#include "api/chat_messages.h"

#include <array>
#include <utility>

#include "text/json_field.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<const char*, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};

// Messages of one body; complaints go to its reader.
class MessageReader {
 public:
  MessageReader(BodyReader& body, const ModelContext& context) : body_(body), context_(context) {}

  Json read() {
    const Json* list =
        body_.array("messages", static_cast<size_t>(context_.limits.num_messages_max));
    if (list == nullptr) {
      body_.fail("messages", "is missing: give a list of messages");
      return {};
    }
    if (list->empty()) body_.fail("messages", "must not be empty");
    Json messages = Json::array();
    for (size_t i = 0; i < list->size() && !body_.failed(); ++i) {
      messages.push_back(message((*list)[i], "messages[" + std::to_string(i) + "]"));
    }
    return messages;
  }

 private:
  Json message(const Json& value, const std::string& name) {
    if (!value.is_object()) {
      body_.fail(name, "must be an object, not " + kind_of(value));
      return {};
    }
    Json result = Json::object();
    const std::string role = role_of(value, name);
    for (const auto& [key, member] : value.items()) {
      if (key == "role") {
        result["role"] = role;
      } else if (key == "content") {
        result["content"] = content(member, name + ".content");
      } else if (key == "tool_calls") {
        if (!member.is_null()) result["tool_calls"] = tool_calls(member, name + ".tool_calls");
      } else if (!member.is_null()) {
        count(member.is_string() ? member.get_ref<const std::string&>().size() : 0);
        result[key] = member;
      }
    }
    const bool has_content = result.contains("content") && !result["content"].is_null();
    const bool has_calls = result.contains("tool_calls");
    if (!has_content && role != "assistant" && !body_.failed()) {
      body_.fail(name + ".content", "is missing");
    }
    if (!has_content) result["content"] = has_calls && role == "assistant" ? Json() : Json("");
    return result;
  }

  // Templates that do not know "developer" would drop the message.
  std::string role_of(const Json& value, const std::string& name) {
    const auto found = value.find("role");
    const std::string role =
        found != value.end() && found->is_string() ? found->get<std::string>() : std::string();
    for (const char* known : kRoles) {
      if (role != known) continue;
      const bool is_unknown_to_template =
          role == "developer" && !context_.chat_template->mentions(role);
      return is_unknown_to_template ? "system" : role;
    }
    body_.fail(name + ".role",
               "must be \"system\", \"developer\", \"user\", \"assistant\" or \"tool\"");
    return {};
  }

  // A string, or text parts, which are joined by new lines.
  Json content(const Json& value, const std::string& name) {
    if (value.is_null()) return {};
    if (value.is_string()) {
      count(value.get_ref<const std::string&>().size());
      return value;
    }
    if (!value.is_array()) {
      body_.fail(name, "must be a string or a list of parts, not " + kind_of(value));
      return {};
    }
    std::string text;
    for (size_t i = 0; i < value.size() && !body_.failed(); ++i) {
      if (i > 0) text += '\n';
      append_part(value[i], name + "[" + std::to_string(i) + "]", text);
    }
    return text;
  }

  void append_part(const Json& part, const std::string& name, std::string& text) {
    if (part.is_string()) {
      text += part.get_ref<const std::string&>();
      return count(text.size());
    }
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string()) {
      return body_.fail(name, "must be an object with a type, e.g. {\"type\": \"text\", ...}");
    }
    const auto& kind = type->get_ref<const std::string&>();
    const char* field = kind == "refusal" ? "refusal" : "text";
    if (kind != "text" && kind != "refusal" && kind != "input_text" && kind != "output_text") {
      const bool is_media = kind.starts_with("image") || kind.starts_with("video") ||
                            kind.starts_with("audio") || kind.starts_with("input_") ||
                            kind == "file";
      return body_.fail(name + ".type",
                        is_media
                            ? "names an image, sound, video or file: this server takes text only"
                            : "must be \"text\"",
                        "unsupported_content_type");
    }
    const auto found = part.find(field);
    if (found == part.end() || !found->is_string()) {
      return body_.fail(name + "." + field, "must be a string");
    }
    const auto& words = found->get_ref<const std::string&>();
    count(words.size());
    text += words;
  }

  // Templates print arguments either way; most expect an object.
  Json tool_calls(const Json& value, const std::string& name) {
    if (!value.is_array()) {
      body_.fail(name, "must be a list, not " + kind_of(value));
      return {};
    }
    Json calls = value;
    for (size_t i = 0; i < calls.size(); ++i) {
      const std::string where = name + "[" + std::to_string(i) + "].function";
      Json& call = calls[i];
      if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
        body_.fail(where, "must be an object");
        return {};
      }
      Json& function = call["function"];
      if (!function.contains("name") || !function["name"].is_string()) {
        body_.fail(where + ".name", "must be a string");
        return {};
      }
      if (function.contains("arguments")) {
        parse_arguments(function["arguments"], where + ".arguments");
      }
    }
    return calls;
  }

  void parse_arguments(Json& arguments, const std::string& name) {
    if (!arguments.is_string()) return;
    const std::string source = arguments.get<std::string>();
    count(source.size());
    Result<Json> parsed = text::parse_ordered_json(source.empty() ? "{}" : source, name);
    if (parsed.ok() && parsed->is_object()) {
      arguments = std::move(parsed).value();
    } else {
      body_.fail(name, "must be a JSON object written as a string");
    }
  }

  void count(size_t size_bytes) {
    num_bytes_ += static_cast<int64_t>(size_bytes);
    const int64_t limit = context_.limits.prompt_bytes_max;
    if (num_bytes_ > limit) {
      body_.fail("messages", "have more than " + std::to_string(limit) + " bytes of text");
    }
  }

  BodyReader& body_;
  const ModelContext& context_;
  int64_t num_bytes_ = 0;
};

Json read_tools(BodyReader& body, const ModelContext& context) {
  const Json* list = body.array("tools", static_cast<size_t>(context.limits.num_tools_max));
  if (list == nullptr || list->empty()) return {};
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string name = "tools[" + std::to_string(i) + "]";
    const Json& tool = (*list)[i];
    if (!tool.is_object() || tool.value("type", Json()) != "function") {
      body.fail(name + ".type", "must be \"function\"");
      return {};
    }
    const auto function = tool.find("function");
    const bool has_name = function != tool.end() && function->is_object() &&
                          function->value("name", Json()).is_string();
    if (!has_name) {
      body.fail(name + ".function", "must be an object with a name");
      return {};
    }
  }
  return *list;
}

Json read_variables(BodyReader& body) {
  const Json* object = body.object("chat_template_kwargs");
  Json variables = object == nullptr ? Json() : *object;
  const std::string effort = body.string("reasoning_effort", 32, {});
  if (!effort.empty() && !variables.contains("reasoning_effort")) {
    variables["reasoning_effort"] = effort;
  }
  return variables;
}

void check_size(BodyReader& body, const char* name, const Json& value, int64_t limit) {
  if (value.is_null() || body.failed()) return;
  const auto size = static_cast<int64_t>(value.dump().size());
  if (size > limit) {
    body.fail(name,
              "has " + std::to_string(size) + " bytes, the limit is " + std::to_string(limit));
  }
}

std::string trimmed(const std::string& text) {
  const char* spaces = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(spaces);
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(spaces) + 1 - first);
}

// The text up to the end of the last message's content.
ApiResult<std::string> cut_after_final(std::string text, const Json& final_message) {
  const std::string content = final_message["content"].is_string()
                                  ? final_message["content"].get<std::string>()
                                  : std::string();
  const std::string words = trimmed(content);
  const size_t start = words.empty() ? std::string::npos : text.rfind(words);
  if (start == std::string::npos) {
    return ApiError{.message =
                        "continue_final_message needs a last message whose text the chat "
                        "template writes as it is",
                    .param = "continue_final_message"};
  }
  // Spaces at the end stay if the template keeps them.
  const size_t spaces = content.size() - (content.find(words) + words.size());
  const bool keeps_spaces =
      text.compare(start + words.size(), spaces, content, content.size() - spaces, spaces) == 0;
  text.resize(start + words.size() + (keeps_spaces ? spaces : 0));
  return text;
}

// Arguments of earlier calls as the client wrote them.
Json with_arguments_as_text(const Json& messages) {
  Json result = messages;
  for (Json& message : result) {
    if (!message.contains("tool_calls")) continue;
    for (Json& call : message["tool_calls"]) {
      Json& function = call["function"];
      const bool is_object = function.contains("arguments") && function["arguments"].is_object();
      if (is_object) function["arguments"] = function["arguments"].dump();
    }
  }
  return result;
}

bool has_tool_calls(const Json& messages) {
  for (const Json& message : messages) {
    if (message.contains("tool_calls")) return true;
  }
  return false;
}

}  // namespace

Conversation read_conversation(BodyReader& body, const ModelContext& context) {
  Conversation result;
  result.messages = MessageReader(body, context).read();
  result.tools = read_tools(body, context);
  result.variables = read_variables(body);
  check_size(body, "tools", result.tools, context.limits.value_bytes_max);
  check_size(body, "chat_template_kwargs", result.variables, context.limits.value_bytes_max);
  result.continue_final_message = body.boolean("continue_final_message", false);
  const bool asked_for_prompt = body.find("add_generation_prompt") != nullptr;
  result.add_generation_prompt =
      body.boolean("add_generation_prompt", !result.continue_final_message);
  if (asked_for_prompt && result.add_generation_prompt && result.continue_final_message) {
    body.fail("continue_final_message", "and add_generation_prompt cannot both be true");
  }
  return result;
}

ApiResult<std::string> render(const Conversation& conversation, const ModelContext& context) {
  text::ChatOptions options;
  options.add_generation_prompt = conversation.add_generation_prompt;
  options.limits = context.limits.chat_template;
  const auto rendered = [&](const Json& messages) {
    return context.chat_template->render(messages, conversation.tools, conversation.variables,
                                         options);
  };
  Result<std::string> text = rendered(conversation.messages);
  if (!text.ok() && has_tool_calls(conversation.messages)) {
    // A template that glues arguments to other text wants them as text.
    Result<std::string> again = rendered(with_arguments_as_text(conversation.messages));
    if (again.ok()) text = std::move(again);
  }
  if (!text.ok()) return ApiError{.message = text.error().message, .param = "messages"};
  if (!conversation.continue_final_message) return std::move(text).value();
  return cut_after_final(std::move(text).value(), conversation.messages.back());
}

std::vector<TokenId> encode_rendered(const std::string& text, const ModelContext& context) {
  return context.tokenizer->encode(text, {.allow_special = true, .add_special = false});
}

}  // namespace nanocp::api
