// Charts as SVG text that pages embed and that a converter turns into pictures. Colours are classes
// (chart/theme.h). Values to hover over are left to the page: a chart carries its scales in data-
// attributes and single marks carry a <title>. Pure functions, any thread.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "chart/scale.h"

namespace nanocp::chart {

struct Size {
  double width = 480.0;
  double height = 290.0;
};

struct Point {
  double x = 0.0;
  double y = 0.0;
};

struct Line {
  std::string name = {};
  int color = 0;  // of series
  std::vector<Point> points = {};
  bool has_markers = false;
  bool is_faint = false;
};

// Between two values at each x.
struct Band {
  int color = 0;
  std::vector<Point> low = {};
  std::vector<Point> high = {};  // at the same x
};

// A line across that a value shall stay below or above.
struct Guide {
  double y = 0.0;
  std::string label;
};

struct LineChart {
  std::string name = {};  // for screen readers
  Axis x = {};
  Axis y = {};
  std::vector<Line> lines = {};
  std::vector<Band> bands = {};
  std::vector<Guide> guides = {};
  Size size = {};
};
std::string draw(const LineChart& chart);

// A row per thing: from its median to a high percentile, and on to the largest value.
struct RangeRow {
  std::string label = {};
  int color = 0;
  std::array<double, 4> values = {};  // rising: P50, P90, P99, largest
};
struct RangeChart {
  std::string name = {};
  Axis x = {};
  std::vector<RangeRow> rows = {};
  std::vector<Guide> guides = {};  // across x
  double width = 480.0;
};
std::string draw(const RangeChart& chart);

// Groups of upright bars, one bar per series in each.
struct BarSeries {
  std::string name = {};
  int color = 0;
  std::vector<double> values = {};  // [categories]
};
struct BarChart {
  std::string name = {};
  Axis y = {};
  std::string x_title = {};
  std::vector<std::string> categories = {};
  std::vector<BarSeries> series = {};
  Size size = {};
};
std::string draw(const BarChart& chart);

// Rows that are each a whole made of parts, in the order and colours of `parts`; plain bars where
// there is only one.
struct PartsRow {
  std::string label = {};
  std::vector<double> values = {};  // [parts]
};
struct PartsChart {
  std::string name = {};
  Axis x = {};
  std::vector<std::string> parts = {};  // at most kNumPartColors
  std::vector<PartsRow> rows = {};
  double width = 480.0;
};
std::string draw(const PartsChart& chart);

// A share between 0 and 1 for every row over time.
struct Heatmap {
  std::string name = {};
  Axis x = {};
  std::string row_word = {};                     // "instance"
  std::vector<double> times = {};                // rising; a column lasts until the next begins
  std::vector<std::vector<float>> columns = {};  // [times][rows]
  double width = 480.0;
};
std::string draw(const Heatmap& chart);

// Charts below each other in `num_columns` columns, each under its title: one picture that stands
// alone, in light colours.
struct SheetItem {
  std::string title = {};
  std::string svg = {};  // as draw() gives it
};
struct Sheet {
  std::string title = {};
  std::vector<std::string> lines = {};  // below the title
  std::vector<SheetItem> items = {};
  int num_columns = 2;
};
std::string draw(const Sheet& sheet);

}  // namespace nanocp::chart
