#include "text/chat_template.h"

#include <array>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>
#include <vector>

#include "text/jinja/from_json.h"
#include "text/json_field.h"
#include "text/text_file.h"

namespace nanocp::text {
namespace {

using nlohmann::ordered_json;

struct Templates {
  std::map<std::string, jinja::Template> by_name;
  std::string source;  // of all
};

constexpr const char* kDefault = "default";
constexpr const char* kToolUse = "tool_use";
constexpr int64_t kConfigBytesMax = int64_t{16} << 20;
constexpr size_t kTemplatesMax = 64;

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm time{};
  localtime_r(&now, &time);
  return time;
}

std::string formatted(const std::string& format, const std::tm& time) {
  std::array<char, 4096> buffer;
  // A trailing character tells an empty result from one that does not fit.
  const size_t size = std::strftime(buffer.data(), buffer.size(), (format + "|").c_str(), &time);
  return size == 0 ? std::string() : std::string(buffer.data(), size - 1);
}

// "..." or {"content": "..."}.
Result<std::string> token_text(const JsonField& field) {
  if (field.value().is_object()) return field.member("content").string();
  return field.string();
}

Result<SpecialTokens> parse_special_tokens(const JsonField& config) {
  SpecialTokens tokens;
  for (const char* name : {"bos_token", "eos_token", "unk_token", "pad_token", "sep_token",
                           "cls_token", "mask_token"}) {
    const JsonField field = config.member(name);
    if (field.is_null()) continue;
    NANOCP_ASSIGN_OR_RETURN(tokens[name], token_text(field));
  }
  return tokens;
}

Status add_template(std::string_view source, const std::string& file, const std::string& name,
                    Templates& templates) {
  NANOCP_ASSIGN_OR_RETURN(jinja::Template parsed, jinja::Template::parse(source, file));
  templates.by_name.insert_or_assign(name, std::move(parsed));
  templates.source.append(source).push_back('\n');
  return ok_status();
}

// A string, or a list of {"name", "template"}.
Status parse_templates(const JsonField& field, const std::string& file, Templates& templates) {
  if (field.value().is_string()) {
    return add_template(field.value().get_ref<const std::string&>(), file + ": chat_template",
                        kDefault, templates);
  }
  if (!field.value().is_array()) {
    return field.invalid("must be a string or a list of named templates");
  }
  if (field.value().size() > kTemplatesMax) return field.invalid("has more than 64 elements");
  for (size_t i = 0; i < field.value().size(); ++i) {
    const JsonField entry = field.element(i);
    NANOCP_RETURN_IF_ERROR(entry.expect_object());
    NANOCP_ASSIGN_OR_RETURN(const std::string name, entry.member("name").string());
    NANOCP_ASSIGN_OR_RETURN(const std::string source, entry.member("template").string());
    NANOCP_RETURN_IF_ERROR(
        add_template(source, file + ": chat_template " + shown(name), name, templates));
  }
  return ok_status();
}

Status check_messages(const ordered_json& messages) {
  if (!messages.is_array()) return invalid_argument("messages must be a list");
  if (messages.empty()) return invalid_argument("messages must not be empty");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string where = "messages[" + std::to_string(i) + "]";
    if (!messages[i].is_object()) return invalid_argument(where + " must be an object");
    const auto role = messages[i].find("role");
    if (role == messages[i].end() || !role->is_string()) {
      return invalid_argument(where + ".role must be a string");
    }
  }
  return ok_status();
}

}  // namespace

Result<ChatTemplate> ChatTemplate::load(const std::filesystem::path& model_dir,
                                        const std::filesystem::path& other_file) {
  const std::filesystem::path config_file = model_dir / "tokenizer_config.json";
  const std::filesystem::path template_file =
      other_file.empty() ? model_dir / "chat_template.jinja" : other_file;
  Templates templates;
  SpecialTokens special_tokens;
  std::error_code error;
  if (!std::filesystem::is_directory(model_dir, error)) {
    return not_found(model_dir.string() + ": no such directory");
  }
  const bool has_file = !other_file.empty() || std::filesystem::exists(template_file, error);
  if (std::filesystem::exists(config_file, error)) {
    NANOCP_ASSIGN_OR_RETURN(const std::string content,
                            read_text_file(config_file, kConfigBytesMax));
    NANOCP_ASSIGN_OR_RETURN(const nlohmann::json document,
                            parse_json(content, config_file.string()));
    const JsonField config(document, config_file.string());
    NANOCP_RETURN_IF_ERROR(config.expect_object());
    NANOCP_ASSIGN_OR_RETURN(special_tokens, parse_special_tokens(config));
    const JsonField field = config.member("chat_template");
    if (!has_file && !field.is_null()) {
      NANOCP_RETURN_IF_ERROR(parse_templates(field, config_file.string(), templates));
    }
  }
  if (has_file) {
    NANOCP_ASSIGN_OR_RETURN(const std::string source,
                            read_text_file(template_file, jinja::kTemplateBytesMax));
    NANOCP_RETURN_IF_ERROR(add_template(source, template_file.string(), kDefault, templates));
  }
  if (templates.by_name.empty()) {
    return not_found(model_dir.string() +
                     ": no chat template: neither chat_template.jinja nor chat_template in "
                     "tokenizer_config.json");
  }
  return ChatTemplate(std::move(templates.by_name), std::move(special_tokens),
                      std::move(templates.source));
}

Result<ChatTemplate> ChatTemplate::from_string(std::string_view source, const std::string& name,
                                               SpecialTokens special_tokens) {
  Templates templates;
  NANOCP_RETURN_IF_ERROR(add_template(source, name, kDefault, templates));
  return ChatTemplate(std::move(templates.by_name), std::move(special_tokens),
                      std::move(templates.source));
}

Result<std::string> ChatTemplate::render(const ordered_json& messages, const ordered_json& tools,
                                         const ordered_json& variables,
                                         const ChatOptions& options) const {
  NANOCP_RETURN_IF_ERROR(check_messages(messages));
  if (!tools.is_null() && !tools.is_array()) return invalid_argument("tools must be a list");
  if (!variables.is_null() && !variables.is_object()) {
    return invalid_argument("template variables must be an object");
  }
  const bool for_tools = !tools.is_null() && !tools.empty() && templates_.contains(kToolUse);
  const auto chosen = templates_.find(for_tools ? kToolUse : kDefault);
  if (chosen == templates_.end()) return not_found("there is no chat template named 'default'");

  // What is found first counts: a request cannot replace the conversation by a variable.
  jinja::Dict all;
  const int32_t depth_max = options.limits.value_depth_max - 2;
  for (const auto& [name, json] : {std::pair("messages", &messages), std::pair("tools", &tools)}) {
    NANOCP_ASSIGN_OR_RETURN(jinja::Value value, jinja::from_json(*json, name, depth_max));
    all.emplace_back(name, std::move(value));
  }
  all.emplace_back("documents", jinja::Value());
  all.emplace_back("add_generation_prompt", options.add_generation_prompt);
  for (const auto& [key, json] : variables.items()) {
    NANOCP_ASSIGN_OR_RETURN(jinja::Value value, jinja::from_json(json, key, depth_max));
    all.emplace_back(key, std::move(value));
  }
  for (const auto& [name, token] : special_tokens_) all.emplace_back(name, token);

  const std::tm now = options.now ? *options.now : local_time();
  return chosen->second.render(
      all, [&now](const std::string& format) { return formatted(format, now); }, options.limits);
}

}  // namespace nanocp::text
