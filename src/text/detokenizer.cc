#include "text/detokenizer.h"

#include "text/unicode.h"

namespace nanocp::text {

std::string Detokenizer::push(TokenId token) {
  std::string text;
  if (skip_special_ && tokenizer_->is_special(token)) return text;
  pending_.append(tokenizer_->token_bytes(token));
  pending_.erase(0, append_valid_utf8(pending_, false, text));
  return text;
}

std::string Detokenizer::flush() {
  std::string text;
  append_valid_utf8(pending_, true, text);
  pending_.clear();
  return text;
}

}  // namespace nanocp::text
