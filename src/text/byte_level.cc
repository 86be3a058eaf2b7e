#include "text/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace nanocp::text {
namespace {

// Printable Latin-1 stands for itself; the other bytes follow from U+0100 in rising order.
constexpr size_t kNumCharacters = 256 + 68;

struct Alphabet {
  std::array<std::string, 256> character_of;
  std::array<int16_t, kNumCharacters> byte_of;  // by code point, -1: none

  Alphabet() {
    byte_of.fill(-1);
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
      const char32_t code_point = printable ? static_cast<char32_t>(byte) : next++;
      append_utf8(code_point, character_of[static_cast<size_t>(byte)]);
      byte_of[code_point] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

}  // namespace

const std::string& byte_character(uint8_t byte) {
  return alphabet().character_of[byte];
}

std::optional<std::string> bytes_of_characters(std::string_view characters) {
  std::string bytes;
  size_t position = 0;
  while (position < characters.size()) {
    const Utf8Step step = next_utf8(characters, position);
    if (step.kind != Utf8Kind::kValid || step.code_point >= kNumCharacters) return std::nullopt;
    const int16_t byte = alphabet().byte_of[step.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    position += step.length;
  }
  return bytes;
}

}  // namespace nanocp::text
