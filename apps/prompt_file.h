// What the user asks: prompts from flags and from a JSONL file.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "apps/generation_params.h"
#include "base/result.h"
#include "plan/ids.h"

namespace nanocp::apps {

struct Prompt {
  std::string source;  // for messages: "FILE:LINE" or "--prompt"
  std::string text;
  std::vector<TokenId> token_ids;  // instead of a text
  GenerationParams params;
};

// One prompt per line, blank lines aside: {"prompt": TEXT or [TOKEN, ...], PARAMETER: VALUE, ...}.
// What a line does not set comes from `defaults`. Errors name file, line and field.
Result<std::vector<Prompt>> read_prompt_file(const std::filesystem::path& path,
                                             const GenerationParams& defaults);

}  // namespace nanocp::apps
