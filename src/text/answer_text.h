// The text of one answer while its tokens come: detokenised, and ended at a stop string. One per
// answer; one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "plan/ids.h"
#include "text/detokenizer.h"
#include "text/stop_matcher.h"
#include "text/tokenizer.h"

namespace nanocp::text {

struct AnswerTextOptions {
  bool skip_special = true;
  std::vector<TokenId> shown_special = {};  // tokens that are not skipped
  std::vector<std::string> stop = {};
  bool include_stop = false;  // the stop string that ends the answer is part of it
  int32_t min_tokens = 0;     // stop strings do not count before
};

class AnswerText {
 public:
  // Requires: `tokenizer` outlives this.
  AnswerText(const Tokenizer& tokenizer, AnswerTextOptions options);

  // The text that may be shown now that `token` has come. It counts but has no text itself if
  // `is_text` is false.
  std::string push(TokenId token, bool is_text);

  // The end of the answer: what was held back.
  std::string flush();

  // A stop string has ended the answer.
  bool stopped() const { return matcher_.matched(); }
  // Requires: stopped().
  const std::string& stop_string() const { return options_.stop[matcher_.matched_index()]; }

 private:
  std::string matched(std::string text);

  AnswerTextOptions options_;
  Detokenizer detokenizer_;
  StopMatcher matcher_;
  int64_t num_tokens_ = 0;
};

}  // namespace nanocp::text
