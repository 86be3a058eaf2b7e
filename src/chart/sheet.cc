#include <algorithm>
#include <cstdlib>

#include "chart/chart.h"
#include "chart/svg.h"
#include "chart/theme.h"

namespace nanocp::chart {
namespace {

constexpr double kMargin = 28.0;
constexpr double kGap = 30.0;
constexpr double kColumn = 480.0;
constexpr double kHeadHeight = 24.0;

// The height that open_svg() wrote.
double height_of(const std::string& svg) {
  const size_t at = svg.find(" height=\"");
  return at == std::string::npos ? 0.0 : std::strtod(svg.c_str() + at + 9, nullptr);
}

// The chart at a place of its own within another.
void place(std::string& out, const std::string& svg, double x, double y) {
  constexpr size_t kTagLength = 4;  // <svg
  append(out, "<svg x=\"%.1f\" y=\"%.1f\"", x, y);
  out.append(svg, kTagLength);
}

}  // namespace

std::string draw(const Sheet& sheet) {
  const auto num_columns = static_cast<size_t>(std::max(1, sheet.num_columns));
  const double width = 2.0 * kMargin + static_cast<double>(num_columns) * (kColumn + kGap) - kGap;
  std::string body;
  double y = kMargin + 18.0;
  append(body, "<text x=\"%g\" y=\"%g\" class=\"sheet-title\">%s</text>", kMargin, y,
         escaped(sheet.title).c_str());
  for (const std::string& line : sheet.lines) {
    y += 21.0;
    append(body, "<text x=\"%g\" y=\"%g\" class=\"sheet-text\">%s</text>", kMargin, y,
           escaped(line).c_str());
  }
  y += kGap;
  for (size_t i = 0; i < sheet.items.size(); i += num_columns) {
    double row_height = 0.0;
    for (size_t k = i; k < std::min(i + num_columns, sheet.items.size()); ++k) {
      const double x = kMargin + static_cast<double>(k - i) * (kColumn + kGap);
      append(body, "<text x=\"%g\" y=\"%g\" class=\"sheet-head\">%s</text>", x, y + 14.0,
             escaped(sheet.items[k].title).c_str());
      place(body, sheet.items[k].svg, x, y + kHeadHeight);
      row_height = std::max(row_height, height_of(sheet.items[k].svg));
    }
    y += kHeadHeight + row_height + kGap;
  }
  std::string out;
  append(out,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g "
         "%g\"><style>%s</style><rect width=\"%g\" height=\"%g\" class=\"sheet-back\"/>",
         width, y, width, y, chart_css_light().c_str(), width, y);
  out += body;
  out += "</svg>\n";
  return out;
}

}  // namespace nanocp::chart
