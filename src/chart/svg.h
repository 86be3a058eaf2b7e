// Text of SVG elements. Pure functions, any thread.
#pragma once

#include <string>
#include <string_view>

namespace nanocp::chart {

// For element content and attribute values.
std::string escaped(std::string_view text);
// printf into the end of `out`. Strings from outside must be escaped() first.
[[gnu::format(printf, 2, 3)]] void append(std::string& out, const char* format, ...);
// A coordinate or a value in as few characters as tell it apart: 12, 0.25, 1.5k, 3M.
std::string short_number(double value);
// Width of text in a sans-serif font of that size, roughly; there is no font to measure with.
double text_width(std::string_view text, double font_px);

}  // namespace nanocp::chart
