#include "chart/theme.h"

#include <cctype>
#include <string_view>

#include "chart/svg.h"

namespace nanocp::chart {
namespace {

struct Color {
  const char* name;
  const char* light;
  const char* dark;
};

// Series colours differ in lightness too, and lines carry markers of different shapes, so that
// they are told apart without colour vision.
constexpr Color kColors[] = {
    {"page", "#fbfaf7", "#12161c"}, {"card", "#ffffff", "#191f27"}, {"ink", "#1b2430", "#e7ebf0"},
    {"ink2", "#556170", "#a7b2bf"}, {"ink3", "#8893a1", "#74808e"}, {"grid", "#e6e4de", "#2a323c"},
    {"edge", "#d8d5cc", "#37414d"}, {"good", "#1c7f4f", "#5fcb95"}, {"bad", "#b8322f", "#ff8a80"},
    {"s0", "#2460c4", "#6ea4ff"},   {"s1", "#d06a0c", "#f5a550"},   {"s2", "#16825a", "#57cb98"},
    {"s3", "#7c45c4", "#b894f7"},   {"s4", "#bf2b62", "#f5799f"},   {"s5", "#0f7f92", "#4fc6d8"},
    {"s6", "#83730e", "#d3c24c"},   {"s7", "#5d6673", "#aab4c0"},   {"h0", "#f2f3f3", "#1c232c"},
    {"h1", "#e1e9f4", "#1c2c42"},   {"h2", "#cddcf0", "#1f3859"},   {"h3", "#b4cbea", "#244670"},
    {"h4", "#96b6e2", "#2c5688"},   {"h5", "#759ed8", "#3869a2"},   {"h6", "#5385cc", "#4a7fbd"},
    {"h7", "#356bbc", "#6498d6"},   {"h8", "#2152a0", "#88b5ea"},   {"h9", "#123a7b", "#b9d8ff"},
    {"p0", "#8fb3dc", "#5f8fc4"},   {"p1", "#d06a0c", "#f5a550"},   {"p2", "#2460c4", "#6ea4ff"},
    {"p3", "#e4e1d8", "#2f3843"},   {"p4", "#7c45c4", "#b894f7"},   {"p5", "#16825a", "#57cb98"},
    {"p6", "#9aa3ad", "#79838f"},
};

// `$name` stands for a colour.
constexpr const char* kRules =
    ".chart text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:12px;fill:$ink2}"
    ".chart .strong{fill:$ink;font-weight:600}"
    ".chart .grid{stroke:$grid;stroke-width:1}"
    ".chart .axis{stroke:$edge;stroke-width:1}"
    ".chart .guide{stroke:$bad;stroke-width:1.2;stroke-dasharray:5 4}"
    ".chart .guide-text{fill:$bad;stroke:$card;stroke-width:4px;paint-order:stroke}"
    ".chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
    ".chart .thin{stroke-width:1.2}"
    ".chart .faint{stroke-opacity:.45}"
    ".chart .band{fill-opacity:.16;stroke:none}"
    ".chart .range{fill:none;stroke-width:3;stroke-linecap:round;stroke-opacity:.4}"
    ".chart .mark{stroke:$card;stroke-width:1.5}"
    ".sheet-title{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:22px;"
    "font-weight:600;fill:$ink}"
    ".sheet-text{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:13px;fill:$ink2}"
    ".sheet-head{font-family:system-ui,'DejaVu Sans',sans-serif;font-size:15px;font-weight:600;"
    "fill:$ink}"
    ".sheet-back{fill:$card}";

std::string color_value(std::string_view name, bool as_variable) {
  for (const Color& color : kColors) {
    if (name != color.name) continue;
    if (!as_variable) return color.light;
    return "var(--" + std::string(name) + ")";
  }
  return "red";
}

std::string filled_in(bool as_variables) {
  std::string out;
  const std::string_view rules = kRules;
  for (size_t i = 0; i < rules.size(); ++i) {
    if (rules[i] != '$') {
      out += rules[i];
      continue;
    }
    size_t end = i + 1;
    while (end < rules.size() && (std::isalnum(static_cast<unsigned char>(rules[end])) != 0)) ++end;
    out += color_value(rules.substr(i + 1, end - i - 1), as_variables);
    i = end - 1;
  }
  const auto add_class = [&](char letter, int count, const char* format) {
    for (int i = 0; i < count; ++i) {
      const std::string name = letter + std::to_string(i);
      append(out, format, name.c_str(), color_value(name, as_variables).c_str());
    }
  };
  add_class('s', kNumSeriesColors, ".chart .stroke-%s{stroke:%s}");
  add_class('s', kNumSeriesColors, ".chart .fill-%s{fill:%s}");
  add_class('h', kNumHeatColors, ".chart .fill-%s{fill:%s}");
  add_class('p', kNumPartColors, ".chart .fill-%s{fill:%s}");
  return out;
}

}  // namespace

std::string css_variables(Theme theme) {
  std::string out;
  for (const Color& color : kColors) {
    append(out, "--%s:%s;", color.name, theme == Theme::kLight ? color.light : color.dark);
  }
  return out;
}

std::string chart_css() {
  return filled_in(true);
}

std::string chart_css_light() {
  return filled_in(false);
}

}  // namespace nanocp::chart
