#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/check.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

using Kind = NormalizerStep::Kind;
using CodePoints = std::vector<utf8proc_int32_t>;

utf8proc_option_t options_of(Kind kind) {
  int options = UTF8PROC_STABLE;
  options |= kind == Kind::kNfc || kind == Kind::kNfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (kind == Kind::kNfkc || kind == Kind::kNfkd) options |= UTF8PROC_COMPAT;
  return static_cast<utf8proc_option_t>(options);
}

// Whether no form changes `text`: ASCII, or for NFC everything below U+0300 (lead byte 0xcc).
bool is_normalized(Kind kind, std::string_view text) {
  const uint8_t limit = kind == Kind::kNfc ? 0xcc : 0x80;
  return std::all_of(text.begin(), text.end(),
                     [limit](char c) { return static_cast<uint8_t>(c) < limit; });
}

void append_decomposed(char32_t code_point, utf8proc_option_t options, CodePoints& out) {
  std::array<utf8proc_int32_t, 32> parts;  // the longest compatibility decomposition has 18
  int boundary_class = 0;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code_point), parts.data(),
      static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary_class);
  NANOCP_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

// utf8proc_map sorts marks by swapping neighbours, which takes quadratic time on a long run of
// them.
void sort_marks(CodePoints& code_points) {
  const auto mark_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  auto begin = code_points.begin();
  while (begin != code_points.end()) {
    begin = std::find_if(begin, code_points.end(), [&](auto c) { return mark_class(c) != 0; });
    const auto end =
        std::find_if(begin, code_points.end(), [&](auto c) { return mark_class(c) == 0; });
    std::stable_sort(begin, end, [&](auto a, auto b) { return mark_class(a) < mark_class(b); });
    begin = end;
  }
}

void append_normalized(Kind kind, CodePoints& code_points, std::string& out) {
  if (code_points.empty()) return;
  sort_marks(code_points);
  utf8proc_ssize_t count = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), options_of(kind));
  NANOCP_CHECK(count >= 0);
  code_points.resize(static_cast<size_t>(count));
  for (const utf8proc_int32_t c : code_points) append_utf8(static_cast<char32_t>(c), out);
  code_points.clear();
}

std::string unicode_form(Kind kind, std::string_view text) {
  const utf8proc_option_t options = options_of(kind);
  std::string out;
  out.reserve(text.size());
  CodePoints code_points;
  for (size_t position = 0; position < text.size();) {
    const Utf8Step step = next_utf8(text, position);
    if (step.kind == Utf8Kind::kValid) {
      append_decomposed(step.code_point, options, code_points);
    } else {
      append_normalized(kind, code_points, out);
      out.append(text.substr(position, step.length));
    }
    position += step.length;
  }
  append_normalized(kind, code_points, out);
  return out;
}

std::string replace_all(std::string_view text, const NormalizerStep& step) {
  std::string out;
  out.reserve(text.size());
  size_t done = 0;
  for (size_t found = text.find(step.pattern); found != std::string_view::npos;
       found = text.find(step.pattern, done)) {
    out.append(text.substr(done, found - done)).append(step.content);
    done = found + step.pattern.size();
  }
  return out.append(text.substr(done));
}

}  // namespace

std::string_view Normalizer::apply(std::string_view text, std::string& storage) const {
  for (const NormalizerStep& step : steps_) {
    switch (step.kind) {
      case Kind::kPrepend:
        if (text.empty()) break;
        storage = step.content + std::string(text);
        text = storage;
        break;
      case Kind::kReplace:
        storage = replace_all(text, step);
        text = storage;
        break;
      default:
        if (is_normalized(step.kind, text)) break;
        storage = unicode_form(step.kind, text);
        text = storage;
        break;
    }
  }
  return text;
}

}  // namespace nanocp::text
