// Ends an answer at a stop string. Text that may be the start of one is held back until it is
// decided, so that no part of a stop string is shown. The result does not depend on how the text is
// cut into calls: the match that is complete first counts, of several the one that starts first.
// One per answer; one thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nanocp::text {

class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(const std::vector<std::string>& stop_strings);

  // The text that may be shown now. After a match nothing more comes out.
  std::string push(std::string_view text);

  // The end of the answer: what was held back.
  std::string flush();

  bool matched() const { return matched_.has_value(); }
  // Index of the stop string in the constructor's list. Requires: matched().
  size_t matched_index() const { return *matched_; }

 private:
  // Progress through one stop string (Knuth, Morris and Pratt, 1977).
  struct Pattern {
    std::string text;
    size_t index;
    std::vector<size_t> border;  // [size + 1], longest proper prefix that is also a suffix
    size_t progress = 0;         // bytes of `text` that the stream now ends with

    void advance(char byte);
  };

  std::vector<Pattern> patterns_;
  std::string held_;
  std::optional<size_t> matched_;
};

}  // namespace nanocp::text
