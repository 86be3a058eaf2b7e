#include <algorithm>

#include "chart/chart.h"
#include "chart/frame.h"
#include "chart/svg.h"
#include "chart/theme.h"

namespace nanocp::chart {
namespace {

constexpr double kFontPx = 12.0;
constexpr double kRowHeight = 26.0;
constexpr double kBottom = 40.0;

// Labels stand above their rows when they would take more than this share of the width.
constexpr double kLabelShareMax = 0.4;

template <typename Row>
double label_width(const std::vector<Row>& rows, double width) {
  double widest = 0.0;
  for (const Row& row : rows) widest = std::max(widest, text_width(row.label, kFontPx));
  return std::min(widest + 12.0, kLabelShareMax * width);
}

std::string range_title(const RangeRow& row, const std::string& axis) {
  constexpr const char* kNames[] = {"P50", "P90", "P99", "largest"};
  std::string out = row.label;
  for (size_t i = 0; i < row.values.size(); ++i) {
    append(out, "\n%s %s", kNames[i], short_number(row.values[i]).c_str());
  }
  return out + "\n" + axis;
}

void draw_range(std::string& out, const RangeRow& row, double y, const Scale& scale) {
  double x[4];
  for (size_t i = 0; i < row.values.size(); ++i) x[i] = scale.to_pixel(row.values[i]);
  const std::string css = "fill-s" + std::to_string(row.color);
  append(out,
         "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"line thin faint "
         "stroke-s%d\"/>",
         x[0], y, x[3], y, row.color);
  append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"range stroke-s%d\"/>",
         x[0], y, x[2], y, row.color);
  append(out,
         "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"line thin "
         "stroke-s%d\"/>",
         x[1], y - 6.0, x[1], y + 6.0, row.color);
  draw_marker(out, {x[0], y}, 0, css);
  draw_marker(out, {x[2], y}, 2, css);
}

}  // namespace

std::string draw(const RangeChart& chart) {
  const PlotArea area = {.left = label_width(chart.rows, chart.width),
                         .top = 8.0,
                         .right = chart.width - 14.0,
                         .bottom = 14.0 + kRowHeight * static_cast<double>(chart.rows.size())};
  std::vector<double> values;
  for (const RangeRow& row : chart.rows) {
    values.insert(values.end(), row.values.begin(), row.values.end());
  }
  Axis axis = chart.x;
  for (const Guide& guide : chart.guides) axis.includes.push_back(guide.y);
  const Scale scale(axis, values, {area.left + 8.0, area.right - 8.0}, true);
  std::string out;
  open_svg(out, {chart.width, area.bottom + kBottom + 18.0}, chart.name, "");
  draw_x_axis(out, chart.x, scale, area, true);
  draw_text(out, {area.right, area.bottom + 51.0},
            "\u25CF P50   | P90   \u25C6 P99   thin line: up to the largest",
            "text-anchor=\"end\"");
  for (const Guide& guide : chart.guides) {
    const double x = scale.to_pixel(guide.y);
    append(out,
           "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"guide\"><title>%s"
           "</title></line>",
           x, area.top - 6.0, x, area.bottom, escaped(guide.label).c_str());
  }
  double y = area.top + kRowHeight / 2.0;
  for (const RangeRow& row : chart.rows) {
    append(out, "<g><title>%s</title>", escaped(range_title(row, chart.x.title)).c_str());
    append(out, "<rect x=\"0\" y=\"%.1f\" width=\"%g\" height=\"%g\" fill=\"transparent\"/>",
           y - kRowHeight / 2.0, chart.width, kRowHeight);
    draw_text(out, {0.0, y + 4.0}, row.label);
    draw_range(out, row, y, scale);
    out += "</g>";
    y += kRowHeight;
  }
  out += "</svg>";
  return out;
}

std::string draw(const BarChart& chart) {
  std::string legend;
  std::vector<LegendEntry> entries;
  std::vector<double> values;
  for (const BarSeries& series : chart.series) {
    entries.push_back({.name = series.name, .css = "fill-s" + std::to_string(series.color)});
    values.insert(values.end(), series.values.begin(), series.values.end());
  }
  const double legend_height = draw_legend(legend, entries, 0.0, chart.size.width);
  const PlotArea area = {.left = 50.0,
                         .top = legend_height + 32.0,
                         .right = chart.size.width - 14.0,
                         .bottom = chart.size.height - kBottom};
  const Scale scale(chart.y, values, {area.bottom, area.top}, true);
  std::string out;
  open_svg(out, chart.size, chart.name, "");
  out += legend;
  draw_y_axis(out, chart.y, scale, area);
  append(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" class=\"axis\"/>", area.left,
         area.bottom, area.right, area.bottom);
  draw_text(out, {area.right, area.bottom + 34.0}, chart.x_title, "text-anchor=\"end\"");
  const auto num_categories = static_cast<double>(std::max<size_t>(1, chart.categories.size()));
  const double group = (area.right - area.left) / num_categories;
  const double bar =
      std::min(28.0, 0.8 * group / static_cast<double>(std::max<size_t>(1, chart.series.size())));
  double label_end = -1e9;
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    const double middle = area.left + (static_cast<double>(c) + 0.5) * group;
    const double half = text_width(chart.categories[c], kFontPx) / 2.0;
    if (middle - half > label_end + 4.0) {
      draw_text(out, {middle, area.bottom + 17.0}, chart.categories[c], "text-anchor=\"middle\"");
      label_end = middle + half;
    }
    double x = middle - bar * static_cast<double>(chart.series.size()) / 2.0;
    for (const BarSeries& series : chart.series) {
      const double y = scale.to_pixel(series.values[c]);
      append(out,
             "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"fill-s%d\">"
             "<title>%s, %s: %s</title></rect>",
             x + 0.5, y, bar - 1.0, area.bottom - y, series.color, escaped(series.name).c_str(),
             escaped(chart.categories[c]).c_str(), short_number(series.values[c]).c_str());
      x += bar;
    }
  }
  out += "</svg>";
  return out;
}

std::string draw(const PartsChart& chart) {
  std::string legend;
  std::vector<LegendEntry> entries;
  for (size_t i = 0; i < chart.parts.size(); ++i) {
    if (chart.parts.size() == 1) break;
    entries.push_back({.name = chart.parts[i], .css = "fill-p" + std::to_string(i)});
  }
  const double legend_height = draw_legend(legend, entries, 0.0, chart.width);
  const PlotArea area = {
      .left = label_width(chart.rows, chart.width),
      .top = legend_height + 10.0,
      .right = chart.width - 14.0,
      .bottom = legend_height + 14.0 + kRowHeight * static_cast<double>(chart.rows.size())};
  std::vector<double> totals;
  for (const PartsRow& row : chart.rows) {
    double total = 0.0;
    for (const double value : row.values) total += value;
    totals.push_back(total);
  }
  const Scale scale(chart.x, totals, {area.left, area.right}, true);
  std::string out;
  open_svg(out, {chart.width, area.bottom + kBottom}, chart.name, "");
  out += legend;
  draw_x_axis(out, chart.x, scale, area, true);
  double y = area.top;
  for (const PartsRow& row : chart.rows) {
    draw_text(out, {0.0, y + kRowHeight / 2.0 + 4.0}, row.label);
    double sum = 0.0;
    for (size_t i = 0; i < row.values.size(); ++i) {
      const double x = scale.to_pixel(sum);
      sum += row.values[i];
      append(out,
             "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" class=\"fill-p%zu\">"
             "<title>%s\n%s %s of %s</title></rect>",
             x, y + 3.0, scale.to_pixel(sum) - x, kRowHeight - 6.0, i, escaped(row.label).c_str(),
             escaped(chart.parts[i]).c_str(), short_number(row.values[i]).c_str(),
             escaped(chart.x.title).c_str());
    }
    y += kRowHeight;
  }
  out += "</svg>";
  return out;
}

}  // namespace nanocp::chart
