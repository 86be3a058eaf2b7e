#include "text/split_regex.h"

#include <array>
#include <cstdint>

#include "base/check.h"
#include "text/json_field.h"
#include "text/unicode.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace nanocp::text {
namespace {

constexpr size_t kPatternBytesMax = 4096;

// White_Space: PCRE2's \s also has U+180E, Oniguruma's does not.
constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// Its complement.
constexpr std::string_view kNotSpaces =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{d7ff})"
    R"(\x{e000}-\x{10ffff})";

// Oniguruma's dialect in PCRE2's. Only constructs that mean the same in both pass.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> run() {
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      if (c == '\\') {
        NANOCP_RETURN_IF_ERROR(escape());
        continue;
      }
      NANOCP_RETURN_IF_ERROR(in_class_ ? class_character(c) : plain_character(c));
      out_.push_back(c);
      ++position_;
    }
    return std::move(out_);
  }

 private:
  bool starts_with(std::string_view text) const {
    return pattern_.substr(position_).starts_with(text);
  }

  Error refused(std::string_view construct) const {
    return unsupported("uses " + shown(construct) + ", which is not supported");
  }

  Status class_character(char c) {
    if (c == '[') return refused("[ inside [...]");
    if (starts_with("&&")) return refused("&& inside [...]");
    if (c == ']') in_class_ = false;
    return ok_status();
  }

  Status plain_character(char c) {
    if (c == '[') in_class_ = true;
    if (starts_with("}+")) return refused("{...}+");
    if (c == '(' && starts_with("(?")) {
      for (const std::string_view known : {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
        if (starts_with(known)) return ok_status();
      }
      return refused(pattern_.substr(position_, 4));
    }
    if (starts_with("(*")) return refused("(*");
    return ok_status();
  }

  Status escape() {
    const std::string_view text = pattern_.substr(position_, 2);
    if (text.size() < 2) return invalid_argument("ends with a lone backslash");
    const char c = text[1];
    position_ += 2;
    if (c == 's' || c == 'S') {
      const std::string_view spaces = c == 's' ? kSpaces : kNotSpaces;
      out_.append(in_class_ ? "" : "[").append(spaces).append(in_class_ ? "" : "]");
      return ok_status();
    }
    if (c == 'u') {
      const std::string_view digits = pattern_.substr(position_, 4);
      if (digits.size() < 4) return invalid_argument("has \\u without four digits");
      out_.append("\\x{").append(digits).append("}");
      position_ += 4;
      return ok_status();
    }
    const bool is_letter =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    constexpr std::string_view kSame = "pPdDrntfx";
    if (is_letter && kSame.find(c) == std::string_view::npos) return refused(text);
    out_.append(text);
    // The braces of \p{L} and \x{41} are no quantifier.
    if (is_letter && starts_with("{")) {
      const size_t end = pattern_.find('}', position_);
      if (end == std::string_view::npos) return invalid_argument("has { without }");
      out_.append(pattern_.substr(position_, end + 1 - position_));
      position_ = end + 1;
    }
    return ok_status();
  }

  std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string out_;
};

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Where the valid UTF-8 that starts at `position` ends.
size_t end_of_valid(std::string_view text, size_t position) {
  while (position < text.size()) {
    if (static_cast<uint8_t>(text[position]) < 0x80) {
      ++position;
      continue;
    }
    const Utf8Step step = next_utf8(text, position);
    if (step.kind != Utf8Kind::kValid) break;
    position += step.length;
  }
  return position;
}

// The published patterns step back over a run of characters a few times at most.
uint32_t match_steps_max(std::string_view text) {
  constexpr size_t kFloor = 10'000;
  constexpr size_t kStepsPerByte = 16;
  return static_cast<uint32_t>(std::min<size_t>(kFloor + text.size() * kStepsPerByte, UINT32_MAX));
}

}  // namespace

SplitScratch::SplitScratch()
    : data_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {
  NANOCP_CHECK(data_ != nullptr && context_ != nullptr);
}

void SplitScratch::Free::operator()(pcre2_match_data* data) const {
  pcre2_match_data_free(data);
}

void SplitScratch::Free::operator()(pcre2_match_context* context) const {
  pcre2_match_context_free(context);
}

void SplitRegex::Free::operator()(pcre2_code* code) const {
  pcre2_code_free(code);
}

Result<SplitRegex> SplitRegex::compile(std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kPatternBytesMax) {
    return invalid_argument("must have 1 to " + std::to_string(kPatternBytesMax) + " bytes");
  }
  NANOCP_ASSIGN_OR_RETURN(const std::string translated, Translation(pattern).run());
  int error = 0;
  size_t offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, nullptr);
  if (code == nullptr) return invalid_argument("is not a valid pattern: " + pcre2_message(error));
  // Where memory may not be executable this fails, and the interpreter runs instead.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return SplitRegex(code);
}

void SplitRegex::split(std::string_view text, bool keep_gaps, std::vector<std::string_view>& pieces,
                       SplitScratch& scratch) const {
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = end_of_valid(text, begin);
    if (end > begin) split_valid(text.substr(begin, end - begin), keep_gaps, pieces, scratch);
    begin = end;
    while (begin < text.size()) {
      const Utf8Step step = next_utf8(text, begin);
      if (step.kind == Utf8Kind::kValid) break;
      begin += step.length;
    }
    if (begin > end && keep_gaps) pieces.push_back(text.substr(end, begin - end));
  }
}

void SplitRegex::split_valid(std::string_view text, bool keep_gaps,
                             std::vector<std::string_view>& pieces, SplitScratch& scratch) const {
  pcre2_set_match_limit(scratch.context_.get(), match_steps_max(text));
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto match_from = [&](size_t start, uint32_t options) {
    return pcre2_match(code_.get(), subject, text.size(), start,
                       options | PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, scratch.data_.get(),
                       scratch.context_.get());
  };
  size_t done = 0;
  while (done < text.size()) {
    int count = match_from(done, 0);
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = match_from(done, PCRE2_NO_JIT);
    if (count < 0) break;
    const size_t* range = pcre2_get_ovector_pointer(scratch.data_.get());
    // A lookbehind could put the end before the start (\K); nothing that passes translation does.
    const size_t begin = range[0];
    const size_t end = range[1];
    if (begin < done || end <= begin) break;
    if (keep_gaps && begin > done) pieces.push_back(text.substr(done, begin - done));
    pieces.push_back(text.substr(begin, end - begin));
    done = end;
  }
  if (keep_gaps && done < text.size()) pieces.push_back(text.substr(done));
}

}  // namespace nanocp::text
