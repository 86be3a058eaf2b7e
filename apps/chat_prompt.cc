#include "apps/chat_prompt.h"

#include <nlohmann/json.hpp>

#include "text/json_field.h"
#include "text/text_file.h"

namespace nanocp::apps {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kMessagesBytesMax = int64_t{256} << 20;

Result<Prompt> rendered(const text::ChatTemplate& chat_template, const ordered_json& chat,
                        const std::string& source, const GenerationParams& params) {
  const ordered_json none;
  const auto member = [&](const char* key) -> const ordered_json& {
    const auto found = chat.find(key);
    return found == chat.end() ? none : *found;
  };
  const Result<std::string> text = chat_template.render(
      member("messages"), member("tools"), member("chat_template_kwargs"), text::ChatOptions());
  if (!text.ok()) return Error{text.error().code, source + ": " + text.error().message};
  return Prompt{.source = source, .text = text.value(), .token_ids = {}, .params = params};
}

}  // namespace

Result<Prompt> chat_prompt(const text::ChatTemplate& chat_template, const std::string& message,
                           const GenerationParams& params) {
  const ordered_json chat = {
      {"messages", ordered_json::array({{{"role", "user"}, {"content", message}}})}};
  return rendered(chat_template, chat, "--chat", params);
}

Result<Prompt> read_messages_file(const text::ChatTemplate& chat_template,
                                  const std::filesystem::path& path,
                                  const GenerationParams& params) {
  NANOCP_ASSIGN_OR_RETURN(const std::string content, text::read_text_file(path, kMessagesBytesMax));
  NANOCP_ASSIGN_OR_RETURN(ordered_json chat, text::parse_ordered_json(content, path.string()));
  if (chat.is_array()) chat = {{"messages", std::move(chat)}};
  if (!chat.is_object()) {
    return invalid_argument(path.string() + ": must be a list of messages or an object with one");
  }
  for (const auto& [key, value] : chat.items()) {
    if (key != "messages" && key != "tools" && key != "chat_template_kwargs") {
      return invalid_argument(path.string() + ": \"" + key + "\" is not a known field");
    }
  }
  return rendered(chat_template, chat, path.string(), params);
}

}  // namespace nanocp::apps
