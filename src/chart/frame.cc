#include "chart/frame.h"

#include "chart/svg.h"

namespace nanocp::chart {
namespace {

constexpr double kFontPx = 12.0;
constexpr double kLegendLine = 18.0;

}  // namespace

void open_svg(std::string& out, Size size, const std::string& name, const std::string& data) {
  append(out,
         "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" width=\"%g\" height=\"%g\" "
         "viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%s\"%s>",
         size.width, size.height, size.width, size.height, escaped(name).c_str(), data.c_str());
}

void draw_text(std::string& out, Point at, const std::string& text, const char* attributes) {
  append(out, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>", at.x, at.y, attributes,
         escaped(text).c_str());
}

double draw_legend(std::string& out, const std::vector<LegendEntry>& entries, double top,
                   double width) {
  double x = 0.0;
  double y = top;
  for (const LegendEntry& entry : entries) {
    const double entry_width = 16.0 + text_width(entry.name, kFontPx) + 14.0;
    if (x > 0.0 && x + entry_width > width) {
      x = 0.0;
      y += kLegendLine;
    }
    if (entry.marker < 0) {
      append(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"10\" height=\"10\" rx=\"2\" class=\"%s\"/>",
             x, y + 4.0, entry.css.c_str());
    } else {
      draw_marker(out, {x + 6.0, y + 9.0}, entry.marker, entry.css);
    }
    draw_text(out, {x + 16.0, y + 13.0}, entry.name);
    x += entry_width;
  }
  return entries.empty() ? 0.0 : y + kLegendLine - top;
}

void draw_x_axis(std::string& out, const Axis& axis, const Scale& scale, const PlotArea& area,
                 bool has_grid) {
  double last_end = -1e9;
  for (const double tick : scale.ticks()) {
    const double x = scale.to_pixel(tick);
    append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>", x,
           has_grid ? area.top : area.bottom, x, area.bottom + 4.0, has_grid ? "grid" : "axis");
    const std::string label = short_number(tick);
    const double half = text_width(label, kFontPx) / 2.0;
    if (x - half < last_end + 6.0) continue;
    last_end = x + half;
    draw_text(out, {x, area.bottom + 17.0}, label, "text-anchor=\"middle\"");
  }
  append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"axis\"/>", area.left,
         area.bottom, area.right, area.bottom);
  draw_text(out, {area.right, area.bottom + 34.0}, axis.title, "text-anchor=\"end\"");
}

void draw_y_axis(std::string& out, const Axis& axis, const Scale& scale, const PlotArea& area) {
  for (const double tick : scale.ticks()) {
    const double y = scale.to_pixel(tick);
    append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>", area.left,
           y, area.right, y);
    draw_text(out, {area.left - 7.0, y + 4.0}, short_number(tick), "text-anchor=\"end\"");
  }
  draw_text(out, {0.0, area.top - 14.0}, axis.title);
}

void draw_marker(std::string& out, Point at, int shape, const std::string& css) {
  const char* name = css.c_str();
  switch (shape % 4) {
    case 0:
      append(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4.5\" class=\"mark %s\"/>", at.x, at.y,
             name);
      break;
    case 1:
      append(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"8\" height=\"8\" class=\"mark %s\"/>",
             at.x - 4.0, at.y - 4.0, name);
      break;
    case 2:
      append(out, "<path d=\"M%.1f %.1fl5.5 5.5-5.5 5.5-5.5-5.5z\" class=\"mark %s\"/>", at.x,
             at.y - 5.5, name);
      break;
    default:
      append(out, "<path d=\"M%.1f %.1fl5.4 9.4h-10.8z\" class=\"mark %s\"/>", at.x, at.y - 5.8,
             name);
  }
}

std::string scale_attribute(const char* name, const Axis& axis, const Scale& scale) {
  std::string out;
  append(out, " data-%s=\"%.9g,%.9g,%.1f,%.1f,%d,%s\"", name, scale.min(), scale.max(),
         scale.pixels().begin, scale.pixels().end, scale.is_log() ? 1 : 0,
         escaped(axis.title).c_str());
  return out;
}

}  // namespace nanocp::chart
