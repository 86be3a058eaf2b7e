// What charts have in common: the opening tag, axes with ticks and titles, and a legend. Internal
// to this folder; one thread for each object.
#pragma once

#include <string>
#include <vector>

#include "chart/chart.h"
#include "chart/scale.h"

namespace nanocp::chart {

struct LegendEntry {
  std::string name;
  std::string css;  // "fill-s0"
  int marker = -1;  // shape of the marker, or -1 for a square of colour
};

struct PlotArea {
  double left;
  double top;
  double right;
  double bottom;
};

// `<svg ...>` with the name for screen readers; `data` are further attributes.
void open_svg(std::string& out, Size size, const std::string& name, const std::string& data);
void draw_text(std::string& out, Point at, const std::string& text, const char* attributes = "");
// Entries from left to right in as many lines as they need; returns the height they take.
double draw_legend(std::string& out, const std::vector<LegendEntry>& entries, double top,
                   double width);
// Ticks and numbers along the bottom, lines across the plot where `has_grid`, the title below.
void draw_x_axis(std::string& out, const Axis& axis, const Scale& scale, const PlotArea& area,
                 bool has_grid);
// Ticks and numbers at the left with lines across the plot; the title stands above the plot.
void draw_y_axis(std::string& out, const Axis& axis, const Scale& scale, const PlotArea& area);
// A marker whose shape goes with the colour.
void draw_marker(std::string& out, Point at, int shape, const std::string& css);
// ` data-x="min,max,pixel,pixel,log,title"`
std::string scale_attribute(const char* name, const Axis& axis, const Scale& scale);

}  // namespace nanocp::chart
