#include "text/detokenizer.h"

#include <algorithm>
#include <iterator>

#include "text/unicode.h"

namespace nanocp::text {

void Detokenizer::append_bytes(TokenId token) {
  std::string_view bytes = tokenizer_->token_bytes(token);
  if (bytes.empty()) return;
  if (is_first_) {
    is_first_ = false;
    std::remove_copy(bytes.begin(), bytes.end(), std::back_inserter(pending_), ' ');
    return;
  }
  while (num_leading_spaces_ > 0 && bytes.starts_with(' ')) {
    bytes.remove_prefix(1);
    --num_leading_spaces_;
  }
  if (!bytes.empty()) num_leading_spaces_ = 0;
  pending_.append(bytes);
}

std::string Detokenizer::push(TokenId token) {
  if (skip_special_ && tokenizer_->is_special(token)) return {};
  return push_shown(token);
}

std::string Detokenizer::push_shown(TokenId token) {
  std::string text;
  append_bytes(token);
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
