// Golden results of a tokenizer and a chat template, one JSON object a line:
//   {"kind": "text", "id", "text", "ids", "decoded", "decoded_skip_special"?}
//   {"kind": "chat", "id", "messages", "tools", "add_generation_prompt", "kwargs", "special"?,
//    "rendered", "ids"?} or "error", the message of raise_exception, instead of the last two
// Texts are encoded with special tokens recognised; strftime_now is fixed at 2025-08-15 12:00.
// Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nanocp::text {

struct GoldenFailure {
  std::string id;       // of the case
  std::string message;  // what differs
};

struct GoldenReport {
  int num_texts = 0;
  int num_chats = 0;
  std::vector<GoldenFailure> failures;
};

// What the cases are run with; null where there is none, which is an error if a case needs it.
struct GoldenSubject {
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;
};

// Runs every line of `content`; `name` stands for the file in messages.
Result<GoldenReport> check_goldens(std::string_view content, const std::string& name,
                                   const GoldenSubject& subject);

}  // namespace nanocp::text
