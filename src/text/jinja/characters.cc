#include "text/jinja/characters.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode.h"

namespace nanocp::text::jinja {
namespace {

char32_t changed(char32_t c, bool to_upper) {
  const auto code = static_cast<utf8proc_int32_t>(c);
  return static_cast<char32_t>(to_upper ? utf8proc_toupper(code) : utf8proc_tolower(code));
}

bool in_set(std::string_view character, std::string_view set) {
  if (set.empty()) return is_python_space(next_utf8(character, 0).code_point);
  return set.find(character) != std::string_view::npos;
}

// The last character of `text`, which is not empty.
std::string_view last_character(std::string_view text) {
  size_t start = text.size() - 1;
  while (start > 0 && text.size() - start < 4 &&
         (static_cast<uint8_t>(text[start]) & 0xc0U) == 0x80) {
    --start;
  }
  const Utf8Step step = next_utf8(text, start);
  return step.length == text.size() - start ? text.substr(start) : text.substr(text.size() - 1);
}

}  // namespace

size_t num_characters(std::string_view text) {
  size_t count = 0;
  for (size_t position = 0; position < text.size(); ++count) {
    position += next_utf8(text, position).length;
  }
  return count;
}

std::vector<std::string_view> characters_of(std::string_view text) {
  std::vector<std::string_view> characters;
  for (size_t position = 0; position < text.size();) {
    const size_t size = next_utf8(text, position).length;
    characters.push_back(text.substr(position, size));
    position += size;
  }
  return characters;
}

bool is_python_space(char32_t c) {
  return char_class(c) == CharClass::kSpace || (c >= 0x1c && c <= 0x1f);
}

std::string_view stripped(std::string_view text, std::string_view set, Side side) {
  while (side != Side::kRight && !text.empty()) {
    const size_t size = next_utf8(text, 0).length;
    if (!in_set(text.substr(0, size), set)) break;
    text.remove_prefix(size);
  }
  while (side != Side::kLeft && !text.empty()) {
    const std::string_view last = last_character(text);
    if (!in_set(last, set)) break;
    text.remove_suffix(last.size());
  }
  return text;
}

std::string with_case(std::string_view text, LetterCase letter_case) {
  std::string out;
  out.reserve(text.size());
  bool starts = true;  // a word, or the text
  for (size_t position = 0; position < text.size();) {
    const Utf8Step step = next_utf8(text, position);
    if (step.kind != Utf8Kind::kValid) {
      out.append(text.substr(position, step.length));
      position += step.length;
      continue;
    }
    const bool upper =
        letter_case == LetterCase::kUpper || (letter_case != LetterCase::kLower && starts);
    append_utf8(changed(step.code_point, upper), out);
    starts = letter_case == LetterCase::kTitle && char_class(step.code_point) != CharClass::kLetter;
    position += step.length;
  }
  return out;
}

std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     int64_t count) {
  std::string out;
  size_t done = 0;
  if (from.empty()) {
    for (const std::string_view character : characters_of(text)) {
      if (count != 0) out.append(to);
      if (count > 0) --count;
      out.append(character);
    }
    return count != 0 ? out.append(to) : out;
  }
  while (count != 0) {
    const size_t found = text.find(from, done);
    if (found == std::string_view::npos) break;
    out.append(text.substr(done, found - done)).append(to);
    done = found + from.size();
    if (count > 0) --count;
  }
  return out.append(text.substr(done));
}

}  // namespace nanocp::text::jinja
