// Colours of charts and of the pages that hold them: one table for light and one for dark, and the
// style sheet of the classes that the charts use. Pure functions, any thread.
#pragma once

#include <string>

namespace nanocp::chart {

constexpr int kNumSeriesColors = 8;
constexpr int kNumHeatColors = 10;  // h0 (empty) to h9 (full)
constexpr int kNumPartColors = 7;   // p0..p6: parts of a whole, one of which is waste

enum class Theme { kLight, kDark };

// `--ink: #1b2733; ...`, for :root.
std::string css_variables(Theme theme);
// The rules of the charts, with var(--ink) and so on.
std::string chart_css();
// The same rules with the light colours written out, for readers of SVG that know no variables.
std::string chart_css_light();

}  // namespace nanocp::chart
