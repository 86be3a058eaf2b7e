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
      : tokenizer_(&tokenizer),
        skip_special_(skip_special),
        num_leading_spaces_(tokenizer.num_leading_spaces()),
        is_first_(tokenizer.first_token_without_spaces()) {}

  // The text that `token` completes, possibly empty.
  std::string push(TokenId token);
  // The same for a token that is never skipped.
  std::string push_shown(TokenId token);

  // The end of the answer: an incomplete character becomes U+FFFD. All returned text together
  // equals Tokenizer::decode of all tokens.
  std::string flush();

 private:
  // Appends the bytes of `token`, less what decoding drops at the start of a text.
  void append_bytes(TokenId token);

  const Tokenizer* tokenizer_;
  bool skip_special_;
  int32_t num_leading_spaces_;  // that the text may still lose
  bool is_first_;               // the next token loses its spaces
  std::string pending_;         // at most 3 bytes between calls
};

}  // namespace nanocp::text
