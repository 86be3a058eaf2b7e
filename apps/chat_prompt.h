// Conversations from flags and files, as prompts in the form of the model's chat template.
#pragma once

#include <filesystem>
#include <string>

#include "apps/prompt_file.h"
#include "base/result.h"
#include "text/chat_template.h"

namespace nanocp::apps {

// One message of the user.
Result<Prompt> chat_prompt(const text::ChatTemplate& chat_template, const std::string& message,
                           const GenerationParams& params);

// A JSON file: a list of messages, or an object with "messages" and, if wanted, "tools" and
// "chat_template_kwargs", the template's other variables.
Result<Prompt> read_messages_file(const text::ChatTemplate& chat_template,
                                  const std::filesystem::path& path,
                                  const GenerationParams& params);

}  // namespace nanocp::apps
