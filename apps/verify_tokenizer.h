// Golden results of a tokenizer and a chat template (text/golden.h) for the command line.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace nanocp::apps {

// Runs `golden_file` with the tokenizer.json and the chat template of `folder`, prints the report
// and returns the exit code: 1 if a case failed.
Result<int> verify_tokenizer(const std::filesystem::path& folder,
                             const std::filesystem::path& golden_file, bool as_json);

}  // namespace nanocp::apps
