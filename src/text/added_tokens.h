// Tokens that are recognised as a whole in the text, before it is cut into pieces: special tokens
// such as <|im_end|> and words that were added to a vocabulary. Immutable after construction.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "plan/ids.h"

namespace nanocp::text {

struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;      // control token: not part of the text that a reader sees
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it along
  bool rstrip = false;       // takes the white space after it along
  bool normalized = false;   // looked for after the tokens that are not
};

// A stretch of text, or an added token.
struct TextSegment {
  std::string_view text;
  std::optional<TokenId> token;
};

// Finds one set of added tokens: leftmost first, of several at one place the longest.
class AddedTokenMatcher {
 public:
  void add(const AddedToken& token);

  // Appends the segments of `text` in order; stretches of text in between are not empty. Special
  // tokens are left as text unless `allow_special`.
  void split(std::string_view text, bool allow_special, std::vector<TextSegment>& segments) const;

 private:
  // The longest token that starts at `position`, or null.
  const AddedToken* match(std::string_view text, size_t position) const;

  std::vector<AddedToken> tokens_;
  std::array<bool, 256> is_first_byte_{};
  std::unordered_map<uint64_t, int32_t> edges_;  // (node, byte) -> node
  std::vector<int32_t> token_of_node_ = {-1};    // index in tokens_, -1: none; node 0 is the root
};

}  // namespace nanocp::text
