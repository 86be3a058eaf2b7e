// Strings as Python sees them: sequences of characters, not of bytes. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nanocp::text::jinja {

size_t num_characters(std::string_view text);
std::vector<std::string_view> characters_of(std::string_view text);

// str.isspace of the character.
bool is_python_space(char32_t c);

enum class Side { kLeft, kRight, kBoth };
// Without the characters of `set` at the given side; an empty view means white space.
std::string_view stripped(std::string_view text, std::string_view set, Side side);

enum class LetterCase { kUpper, kLower, kCapitalized, kTitle };
std::string with_case(std::string_view text, LetterCase letter_case);

// Each non-overlapping `from`, the first `count` of them, replaced. An empty `from` stands before
// each character and at the end.
std::string replaced(std::string_view text, std::string_view from, std::string_view to,
                     int64_t count);

}  // namespace nanocp::text::jinja
