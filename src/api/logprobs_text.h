// Log-probabilities as JSON, in the form of either endpoint, collected token by token. One per
// choice; one thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "api/generation_request.h"
#include "plan/ids.h"
#include "text/tokenizer.h"

namespace nanocp::api {

using TopLogprobs = std::span<const std::pair<TokenId, float>>;

class LogprobsText {
 public:
  // Requires: `tokenizer` outlives this. `num_top` alternatives are shown for each token.
  LogprobsText(Endpoint endpoint, const text::Tokenizer& tokenizer, int32_t num_top)
      : endpoint_(endpoint), tokenizer_(&tokenizer), num_top_(num_top) {}

  void add(TokenId token, float logprob, TopLogprobs top);
  // A token that nothing was predicted for: the first one of a prompt. Only for completions.
  void add_first(TokenId token);

  // The object of all tokens since the last call.
  void take(std::string& out);

 private:
  void add_chat(TokenId token, float logprob, TopLogprobs top);
  void append_chat_token(TokenId token, float logprob, std::string& out) const;
  void add_top(TokenId token, float logprob, TopLogprobs top);
  void add_column_token(TokenId token);
  // As the completions endpoint shows it: text, or "bytes:\xNN" where it is not whole characters.
  std::string shown(TokenId token) const;

  Endpoint endpoint_;
  const text::Tokenizer* tokenizer_;
  int32_t num_top_;
  std::string entries_;  // of a chat
  // Of a completion, the insides of its lists.
  std::string tokens_;
  std::string logprobs_;
  std::string top_;
  std::string offsets_;
  int64_t offset_ = 0;  // characters so far
};

}  // namespace nanocp::api
