#include "text/answer_text.h"

#include <algorithm>
#include <utility>

namespace nanocp::text {

AnswerText::AnswerText(const Tokenizer& tokenizer, AnswerTextOptions options)
    : options_(std::move(options)),
      detokenizer_(tokenizer, options_.skip_special),
      matcher_(options_.stop) {}

std::string AnswerText::push(TokenId token, bool is_text) {
  ++num_tokens_;
  if (!is_text) return matched({});
  const auto& shown = options_.shown_special;
  const bool is_shown = std::find(shown.begin(), shown.end(), token) != shown.end();
  return matched(is_shown ? detokenizer_.push_shown(token) : detokenizer_.push(token));
}

std::string AnswerText::flush() {
  std::string text = matched(detokenizer_.flush());
  text += matcher_.flush();
  return text;
}

std::string AnswerText::matched(std::string text) {
  if (options_.stop.empty() || num_tokens_ <= options_.min_tokens || stopped()) {
    return stopped() ? std::string() : text;
  }
  std::string shown = matcher_.push(text);
  if (stopped() && options_.include_stop) shown += stop_string();
  return shown;
}

}  // namespace nanocp::text
