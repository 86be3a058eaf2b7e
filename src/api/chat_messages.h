// The conversation of a chat request, checked and in the form that chat templates expect. Pure
// functions over a parsed body.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "api/body_reader.h"
#include "api/model_context.h"

namespace nanocp::api {

struct Conversation {
  nlohmann::ordered_json messages;   // content is a string or null
  nlohmann::ordered_json tools;      // a list, or null
  nlohmann::ordered_json variables;  // of the template, an object or null
  bool add_generation_prompt = true;
  bool continue_final_message = false;
};

// Reads messages, tools, chat_template_kwargs and what else shapes the prompt.
Conversation read_conversation(BodyReader& body, const ModelContext& context);

// The prompt's text. Requires: context.chat_template is not null.
ApiResult<std::string> render(const Conversation& conversation, const ModelContext& context);

// The prompt's tokens.
std::vector<TokenId> encode_rendered(const std::string& text, const ModelContext& context);

}  // namespace nanocp::api
