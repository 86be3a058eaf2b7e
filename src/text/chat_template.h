// The chat template of a checkpoint: a conversation becomes the text that the model was trained on.
// Immutable after construction, so that one serves all threads; the server or command owns it.
#pragma once

#include <ctime>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/limits.h"
#include "text/jinja/template.h"

namespace nanocp::text {

// Variables that a template uses for the model's special tokens, e.g. bos_token -> "<s>".
using SpecialTokens = std::map<std::string, std::string>;

struct ChatOptions {
  // Ends with what opens the assistant's answer.
  bool add_generation_prompt = true;
  // The local date and time that strftime_now formats; unset: the clock.
  std::optional<std::tm> now = std::nullopt;
  jinja::Limits limits = {};
};

class ChatTemplate {
 public:
  // chat_template.jinja of the folder or else `chat_template` of its tokenizer_config.json, which
  // is a string or a list of named templates. kNotFound if the folder has none. `template_file`, if
  // given, takes the place of both.
  static Result<ChatTemplate> load(const std::filesystem::path& model_dir,
                                   const std::filesystem::path& template_file = {});

  // `name` stands for the template in messages.
  static Result<ChatTemplate> from_string(std::string_view source, const std::string& name,
                                          SpecialTokens special_tokens);

  // The prompt. `messages` is a list of objects with a `role`, as in OpenAI's API; `tools` is null
  // or a list; `variables` is null or an object of what else the template may ask for, e.g.
  // {"enable_thinking": false}. The prompt already has the special tokens: encode it with
  // allow_special and without add_special. Of a list of templates, "tool_use" serves conversations
  // with tools if there is one, "default" all others.
  // An error's message names the template. It is kInvalidArgument where the template refuses the
  // conversation (raise_exception) and kResourceExhausted at a limit.
  Result<std::string> render(const nlohmann::ordered_json& messages,
                             const nlohmann::ordered_json& tools,
                             const nlohmann::ordered_json& variables,
                             const ChatOptions& options) const;

  // Whether `word` is in the source of a template: one that never names a role drops its messages.
  bool mentions(std::string_view word) const { return source_.find(word) != std::string::npos; }

 private:
  ChatTemplate(std::map<std::string, jinja::Template> templates, SpecialTokens special_tokens,
               std::string source)
      : templates_(std::move(templates)),
        special_tokens_(std::move(special_tokens)),
        source_(std::move(source)) {}

  std::map<std::string, jinja::Template> templates_;  // by name
  SpecialTokens special_tokens_;
  std::string source_;  // of all templates, one after the other
};

}  // namespace nanocp::text
