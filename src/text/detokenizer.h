// Turns the tokens of one answer into text as they come. What it has returned is always valid
// UTF-8: bytes that may still become a character wait for the next token. One thread.
#pragma once

#include <string>

#include "plan/ids.h"
#include "text/tokenizer.h"

namespace nanocp::text {

class Detokenizer {
 public:
  // Requires: `tokenizer` outlives this.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}

  // The text that `token` completes, possibly empty.
  std::string push(TokenId token);

  // The end of the answer: an incomplete character becomes U+FFFD. All returned text together
  // equals Tokenizer::decode of all tokens.
  std::string flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  std::string pending_;  // at most 3 bytes between calls
};

}  // namespace nanocp::text
