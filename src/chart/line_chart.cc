#include "chart/chart.h"
#include "chart/frame.h"
#include "chart/svg.h"

namespace nanocp::chart {
namespace {

constexpr double kLeft = 50.0;
constexpr double kRight = 14.0;
constexpr double kBottom = 40.0;

std::vector<double> values_of(const LineChart& chart, double Point::*member) {
  std::vector<double> values;
  const auto add = [&](const std::vector<Point>& points) {
    for (const Point& point : points) values.push_back(point.*member);
  };
  for (const Line& line : chart.lines) add(line.points);
  for (const Band& band : chart.bands) {
    add(band.low);
    add(band.high);
  }
  return values;
}

struct Scales {
  Scale x;
  Scale y;
  Point at(const Point& point) const { return {x.to_pixel(point.x), y.to_pixel(point.y)}; }
};

void draw_points(std::string& out, const std::vector<Point>& points, const Scales& scales) {
  for (const Point& point : points) {
    const Point at = scales.at(point);
    append(out, "%.1f,%.1f ", at.x, at.y);
  }
}

void draw_band(std::string& out, const Band& band, const Scales& scales) {
  append(out, "<polygon class=\"band fill-s%d\" points=\"", band.color);
  draw_points(out, band.low, scales);
  draw_points(out, {band.high.rbegin(), band.high.rend()}, scales);
  out += "\"/>";
}

void draw_line(std::string& out, const Line& line, const Scales& scales) {
  append(out, "<polyline class=\"line stroke-s%d%s%s\" data-name=\"%s\" points=\"", line.color,
         line.has_markers ? "" : " thin", line.is_faint ? " faint" : "",
         escaped(line.name).c_str());
  draw_points(out, line.points, scales);
  out += "\"/>";
  if (!line.has_markers) return;
  const std::string css = "fill-s" + std::to_string(line.color);
  for (const Point& point : line.points) draw_marker(out, scales.at(point), line.color, css);
}

void draw_guide(std::string& out, const Guide& guide, const Scales& scales, const PlotArea& area) {
  const double y = scales.y.to_pixel(guide.y);
  append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"guide\"/>", area.left,
         y, area.right, y);
  const bool is_at_top = y - area.top < 14.0;
  draw_text(out, {area.left + 5.0, is_at_top ? y + 14.0 : y - 5.0}, guide.label,
            "class=\"guide-text\"");
}

}  // namespace

std::string draw(const LineChart& chart) {
  std::string legend;
  std::vector<LegendEntry> entries;
  for (const Line& line : chart.lines) {
    if (line.name.empty()) continue;
    entries.push_back({.name = line.name,
                       .css = "fill-s" + std::to_string(line.color),
                       .marker = line.has_markers ? line.color : -1});
  }
  const double legend_height = draw_legend(legend, entries, 0.0, chart.size.width);
  const PlotArea area = {.left = kLeft,
                         .top = legend_height + 32.0,
                         .right = chart.size.width - kRight,
                         .bottom = chart.size.height - kBottom};
  Axis y_axis = chart.y;
  for (const Guide& guide : chart.guides) y_axis.includes.push_back(guide.y);
  const Scales scales = {
      .x = Scale(chart.x, values_of(chart, &Point::x), {area.left + 6.0, area.right - 6.0}, false),
      .y = Scale(y_axis, values_of(chart, &Point::y), {area.bottom, area.top}, true)};

  std::string out;
  open_svg(out, chart.size, chart.name,
           scale_attribute("x", chart.x, scales.x) + scale_attribute("y", chart.y, scales.y));
  out += legend;
  draw_y_axis(out, chart.y, scales.y, area);
  draw_x_axis(out, chart.x, scales.x, area, false);
  for (const Band& band : chart.bands) draw_band(out, band, scales);
  for (const Line& line : chart.lines) draw_line(out, line, scales);
  for (const Guide& guide : chart.guides) draw_guide(out, guide, scales, area);
  out += "</svg>";
  return out;
}

}  // namespace nanocp::chart
