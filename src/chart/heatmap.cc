#include <algorithm>
#include <array>
#include <cmath>

#include "chart/chart.h"
#include "chart/frame.h"
#include "chart/svg.h"
#include "chart/theme.h"

namespace nanocp::chart {
namespace {

constexpr double kLeft = 50.0;
constexpr double kLegendHeight = 24.0;
constexpr int kNumLevels = 64;
// Values for the page, one character for each level.
constexpr char kDigits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";

int level_of(double share, int num_levels) {
  return std::clamp(static_cast<int>(share * num_levels), 0, num_levels - 1);
}

// The share that has the last colour: the largest one, to the next tenth.
double top_share(const Heatmap& chart) {
  double largest = 0.0;
  for (const std::vector<float>& column : chart.columns) {
    for (const float share : column) largest = std::max(largest, static_cast<double>(share));
  }
  return std::clamp(std::ceil(largest * 10.0 - 1e-6) / 10.0, 0.1, 1.0);
}

struct Cells {
  const Heatmap& chart;
  double top_share;
  size_t num_rows;
  double left;
  double right;
  double top;
  double row_height;

  int level(float share, int num_levels) const {
    return level_of(static_cast<double>(share) / top_share, num_levels);
  }
  // Time axis: a column begins where the one before ended.
  double x_of(size_t column) const {
    const double first = chart.times.front();
    const double last = chart.times.back();
    if (column == 0 || last <= first) return column == 0 ? left : right;
    return left + (chart.times[column - 1] - first) / (last - first) * (right - left);
  }
};

// Runs of equal colour in a row are one rectangle; each colour is one path.
std::array<std::string, kNumHeatColors> paths_of(const Cells& cells) {
  std::array<std::string, kNumHeatColors> paths;
  const size_t num_columns = cells.chart.columns.size();
  for (size_t row = 0; row < cells.num_rows; ++row) {
    size_t begin = 0;
    for (size_t column = 1; column <= num_columns; ++column) {
      const int level = cells.level(cells.chart.columns[begin][row], kNumHeatColors);
      const bool goes_on = column < num_columns &&
                           cells.level(cells.chart.columns[column][row], kNumHeatColors) == level;
      if (goes_on) continue;
      const double x = cells.x_of(begin);
      const double end = column == num_columns ? cells.right : cells.x_of(column);
      append(paths[static_cast<size_t>(level)], "M%.1f %.1fH%.1fv%.1fH%.1fz", x,
             cells.top + static_cast<double>(row) * cells.row_height, end,
             cells.row_height - (cells.row_height > 6.0 ? 1.0 : 0.3), x);
      begin = column;
    }
  }
  return paths;
}

std::string hover_attributes(const Cells& cells) {
  std::string out;
  append(out, " data-rows=\"%zu,%.1f,%.2f,%g,%s\" data-times=\"", cells.num_rows, cells.top,
         cells.row_height, cells.top_share, escaped(cells.chart.row_word).c_str());
  for (const double time : cells.chart.times) append(out, "%.5g,", time);
  out += "\" data-levels=\"";
  for (const std::vector<float>& column : cells.chart.columns) {
    for (const float share : column) out += kDigits[cells.level(share, kNumLevels)];
  }
  return out + "\"";
}

void draw_ramp(std::string& out, double right, double most) {
  double x = right - 16.0 * kNumHeatColors - 46.0;
  draw_text(out, {x - 6.0, 13.0}, "0", "text-anchor=\"end\"");
  for (int i = 0; i < kNumHeatColors; ++i) {
    append(out, "<rect x=\"%.1f\" y=\"3\" width=\"16\" height=\"12\" class=\"fill-h%d\"/>", x, i);
    x += 16.0;
  }
  draw_text(out, {x + 6.0, 13.0}, short_number(100.0 * most) + " %");
}

}  // namespace

std::string draw(const Heatmap& chart) {
  const size_t num_rows = chart.columns.empty() ? 0 : chart.columns.front().size();
  const double row_height =
      std::clamp(200.0 / static_cast<double>(std::max<size_t>(1, num_rows)), 3.0, 24.0);
  const PlotArea area = {
      .left = kLeft,
      .top = kLegendHeight,
      .right = chart.width - 14.0,
      .bottom = kLegendHeight + row_height * static_cast<double>(num_rows) + 1.0};
  const Cells cells = {.chart = chart,
                       .top_share = top_share(chart),
                       .num_rows = num_rows,
                       .left = area.left,
                       .right = area.right,
                       .top = area.top,
                       .row_height = row_height};
  Axis axis = chart.x;
  axis.starts_at_zero = false;
  const Scale scale(axis, chart.times, {area.left, area.right}, false);
  std::string out;
  open_svg(out, {chart.width, area.bottom + 40.0}, chart.name,
           scale_attribute("x", axis, scale) + hover_attributes(cells));
  draw_ramp(out, area.right, cells.top_share);
  draw_text(out, {0.0, 13.0}, chart.row_word);
  const size_t label_every = std::max<size_t>(1, static_cast<size_t>(std::ceil(13.0 / row_height)));
  for (size_t row = 0; row < num_rows; row += label_every) {
    const double y = area.top + (static_cast<double>(row) + 0.5) * row_height;
    draw_text(out, {area.left - 7.0, y + 4.0}, std::to_string(row), "text-anchor=\"end\"");
  }
  if (num_rows > 0) {
    const auto paths = paths_of(cells);
    for (size_t i = 0; i < paths.size(); ++i) {
      if (paths[i].empty()) continue;
      append(out, "<path class=\"fill-h%zu\" d=\"%s\"/>", i, paths[i].c_str());
    }
  }
  draw_x_axis(out, axis, scale, area, false);
  out += "</svg>";
  return out;
}

}  // namespace nanocp::chart
