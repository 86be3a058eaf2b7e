#include "text/unicode.h"

#include <utf8proc.h>

#include <array>

namespace nanocp::text {
namespace {

struct LeadByte {
  size_t length;       // of the whole sequence, 0: not a lead byte
  char32_t bits;       // payload of the lead byte
  uint8_t second_low;  // range of the second byte: no overlong forms, surrogates or > U+10FFFF
  uint8_t second_high;
};

LeadByte classify_lead(uint8_t byte) {
  if (byte < 0x80) return {1, byte, 0x80, 0xbf};
  if (byte < 0xc2) return {0, 0, 0, 0};
  if (byte < 0xe0) return {2, byte & 0x1fU, 0x80, 0xbf};
  if (byte == 0xe0) return {3, 0, 0xa0, 0xbf};
  if (byte == 0xed) return {3, 0xd, 0x80, 0x9f};
  if (byte < 0xf0) return {3, byte & 0xfU, 0x80, 0xbf};
  if (byte == 0xf0) return {4, 0, 0x90, 0xbf};
  if (byte < 0xf4) return {4, byte & 0x7U, 0x80, 0xbf};
  if (byte == 0xf4) return {4, 4, 0x80, 0x8f};
  return {0, 0, 0, 0};
}

bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

CharClass look_up_class(char32_t c) {
  if (is_space(c)) return CharClass::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharClass::kNumber;
    default:
      return CharClass::kOther;
  }
}

std::array<CharClass, 128> make_ascii_classes() {
  std::array<CharClass, 128> classes{};
  for (size_t c = 0; c < classes.size(); ++c) classes[c] = look_up_class(static_cast<char32_t>(c));
  return classes;
}

}  // namespace

Utf8Step next_utf8(std::string_view text, size_t position) {
  const auto byte_at = [&](size_t index) { return static_cast<uint8_t>(text[index]); };
  const LeadByte lead = classify_lead(byte_at(position));
  if (lead.length == 0) return {0xfffd, 1, Utf8Kind::kInvalid};
  char32_t code_point = lead.bits;
  for (size_t i = 1; i < lead.length; ++i) {
    if (position + i == text.size()) return {0xfffd, i, Utf8Kind::kTruncated};
    const uint8_t byte = byte_at(position + i);
    const uint8_t low = i == 1 ? lead.second_low : 0x80;
    const uint8_t high = i == 1 ? lead.second_high : 0xbf;
    if (byte < low || byte > high) return {0xfffd, i, Utf8Kind::kInvalid};
    code_point = (code_point << 6) | (byte & 0x3fU);
  }
  return {code_point, lead.length, Utf8Kind::kValid};
}

void append_utf8(char32_t c, std::string& out) {
  const auto push = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    push(c);
  } else if (c < 0x800) {
    push(0xc0 | (c >> 6));
    push(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    push(0xe0 | (c >> 12));
    push(0x80 | ((c >> 6) & 0x3f));
    push(0x80 | (c & 0x3f));
  } else {
    push(0xf0 | (c >> 18));
    push(0x80 | ((c >> 12) & 0x3f));
    push(0x80 | ((c >> 6) & 0x3f));
    push(0x80 | (c & 0x3f));
  }
}

size_t append_valid_utf8(std::string_view bytes, bool final, std::string& out) {
  size_t position = 0;
  while (position < bytes.size()) {
    const Utf8Step step = next_utf8(bytes, position);
    if (step.kind == Utf8Kind::kTruncated && !final) break;
    if (step.kind == Utf8Kind::kValid) {
      out.append(bytes.substr(position, step.length));
    } else {
      append_utf8(0xfffd, out);
    }
    position += step.length;
  }
  return position;
}

CharClass char_class(char32_t code_point) {
  static const std::array<CharClass, 128> kAscii = make_ascii_classes();
  return code_point < kAscii.size() ? kAscii[code_point] : look_up_class(code_point);
}

bool is_word_char(char32_t c) {
  if (char_class(c) == CharClass::kLetter || c == 0x200c || c == 0x200d) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

}  // namespace nanocp::text
