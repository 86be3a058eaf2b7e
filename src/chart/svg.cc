#include "chart/svg.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdarg>
#include <cstdio>

#include "base/markup.h"

namespace nanocp::chart {

std::string escaped(std::string_view text) {
  std::string out = escape_markup(text, "&quot;");
  // XML has no place for other control characters.
  std::replace_if(
      out.begin(), out.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t'; }, ' ');
  return out;
}

void append(std::string& out, const char* format, ...) {
  std::array<char, 512> small;
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int length = std::vsnprintf(small.data(), small.size(), format, arguments);
  va_end(arguments);
  const auto size = static_cast<size_t>(std::max(0, length));
  if (size < small.size()) {
    out.append(small.data(), size);
  } else {
    const size_t begin = out.size();
    out.resize(begin + size + 1);
    std::vsnprintf(out.data() + begin, size + 1, format, again);
    out.resize(begin + size);
  }
  va_end(again);
}

std::string short_number(double value) {
  const double size = std::abs(value);
  std::string out;
  if (size >= 1e9) {
    append(out, "%.4gG", value / 1e9);
  } else if (size >= 1e6) {
    append(out, "%.4gM", value / 1e6);
  } else if (size >= 1e4) {
    append(out, "%.4gk", value / 1e3);
  } else {
    append(out, "%.4g", value);
  }
  return out;
}

double text_width(std::string_view text, double font_px) {
  double ems = 0.0;
  for (const char c : text) {
    const bool is_narrow = std::string_view("iljtfI.,:;'|!()[] /1").find(c) != std::string::npos;
    const bool is_wide = std::string_view("mwMW%@").find(c) != std::string::npos;
    ems += is_narrow ? 0.34 : is_wide ? 0.88 : 0.59;
  }
  return ems * font_px;
}

}  // namespace nanocp::chart
