#include "text/split_pattern.h"

#include <array>

#include "text/unicode.h"

namespace nanocp::text {
namespace {

struct Char {
  CharClass cls;
  size_t length;
};

Char char_at(std::string_view text, size_t position) {
  const Utf8Step step = next_utf8(text, position);
  if (step.kind != Utf8Kind::kValid) return {CharClass::kOther, step.length};
  return {char_class(step.code_point), step.length};
}

size_t contraction_length(std::string_view rest) {
  constexpr std::array<std::string_view, 7> kContractions = {"'s", "'t",  "'re", "'ve",
                                                             "'m", "'ll", "'d"};
  for (const std::string_view contraction : kContractions) {
    if (rest.starts_with(contraction)) return contraction.size();
  }
  return 0;
}

// Where the run of characters of class `cls` that includes `position` ends.
size_t end_of_run(std::string_view text, size_t position, CharClass cls) {
  while (position < text.size()) {
    const Char c = char_at(text, position);
    if (c.cls != cls) break;
    position += c.length;
  }
  return position;
}

// \s+(?!\S)|\s+ : a run before a word leaves its last character to the word.
size_t end_of_spaces(std::string_view text, size_t begin) {
  size_t last = begin;
  size_t position = begin;
  while (position < text.size()) {
    const Char c = char_at(text, position);
    if (c.cls != CharClass::kSpace) break;
    last = position;
    position += c.length;
  }
  return position < text.size() && last > begin ? last : position;
}

size_t end_of_gpt2_piece(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    if (const size_t length = contraction_length(text.substr(begin))) return begin + length;
  }
  size_t word = begin;
  if (text[begin] == ' ' && begin + 1 < text.size()) word = begin + 1;
  const Char first = char_at(text, word);
  if (first.cls != CharClass::kSpace) return end_of_run(text, word, first.cls);
  return end_of_spaces(text, begin);
}

}  // namespace

void split(SplitPattern /*only one*/, std::string_view text,
           std::vector<std::string_view>& pieces) {
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = end_of_gpt2_piece(text, begin);
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
}

}  // namespace nanocp::text
