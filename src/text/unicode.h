// UTF-8 and the Unicode character classes that tokenizer patterns use. Pure functions, any thread.
// Classes come from utf8proc; white space is the White_Space property, which is stable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace nanocp::text {

enum class Utf8Kind {
  kValid,
  kInvalid,    // never the start of a character, whatever follows
  kTruncated,  // the text ends inside what may still become a character
};

struct Utf8Step {
  char32_t code_point = 0;  // U+FFFD unless valid
  size_t length = 0;        // bytes; of a broken sequence its maximal subpart (Unicode 15, 3.9)
  Utf8Kind kind = Utf8Kind::kValid;
};

// The character that starts at `position`. Requires: position < text.size().
Utf8Step next_utf8(std::string_view text, size_t position);

void append_utf8(char32_t code_point, std::string& out);

// Appends `bytes` to `out` with every broken sequence replaced by U+FFFD, and returns the number of
// bytes used. With `final` unset, a truncated sequence at the end is left for the next call.
size_t append_valid_utf8(std::string_view bytes, bool final, std::string& out);

enum class CharClass : uint8_t { kLetter, kNumber, kSpace, kOther };

// \p{L}, \p{N}, \s, or none of them.
CharClass char_class(char32_t code_point);

// \w: letters, marks, decimal digits, connectors and joiners.
bool is_word_char(char32_t code_point);

}  // namespace nanocp::text
