// The split pattern that tokenizer.json does not write out but implies (ByteLevel with use_regex),
// by hand: no regular expression is as quick. Pure functions, any thread.
#pragma once

#include <string_view>
#include <vector>

namespace nanocp::text {

enum class SplitPattern {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+  (GPT-2, 2019)
  kGpt2,
};

// Appends the pieces of `text` in order; together they are the whole text. Bytes that are not UTF-8
// count as characters that are neither letter, number nor space.
void split(SplitPattern pattern, std::string_view text, std::vector<std::string_view>& pieces);

}  // namespace nanocp::text
