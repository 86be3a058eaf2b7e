// Charts are well-formed, keep within their frame, and draw odd data without odd numbers.
#include "chart/chart.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "chart/scale.h"
#include "chart/svg.h"
#include "chart/theme.h"

namespace nanocp::chart {
namespace {

// Every element that opens closes, in order, and attributes are quoted.
void expect_well_formed(const std::string& svg) {
  std::vector<std::string> open;
  size_t at = 0;
  while ((at = svg.find('<', at)) != std::string::npos) {
    const size_t end = svg.find('>', at);
    ASSERT_NE(end, std::string::npos);
    const std::string tag = svg.substr(at + 1, end - at - 1);
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag[0] == '/') {
      ASSERT_FALSE(open.empty()) << tag;
      EXPECT_EQ(open.back(), name.substr(1));
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    EXPECT_EQ(std::count(tag.begin(), tag.end(), '"') % 2, 0) << tag;
    EXPECT_EQ(tag.find('<'), std::string::npos) << tag;
    at = end;
  }
  EXPECT_TRUE(open.empty());
  for (const char* odd : {"nan", "inf", "e+"}) EXPECT_EQ(svg.find(odd), std::string::npos) << svg;
}

size_t count_of(const std::string& text, const std::string& word) {
  size_t count = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++count;
  return count;
}

TEST(Svg, TextIsEscapedAndNumbersAreShort) {
  EXPECT_EQ(escaped("<a href='x'>&\x01</a>"), "&lt;a href=&#39;x&#39;&gt;&amp; &lt;/a&gt;");
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(1234), "1234");
  EXPECT_EQ(short_number(12'500), "12.5k");
  EXPECT_EQ(short_number(3e6), "3M");
  std::string out;
  append(out, "%s|%d", std::string(2000, 'x').c_str(), 7);
  EXPECT_EQ(out, std::string(2000, 'x') + "|7");
}

TEST(Scale, TicksAreRoundAndWithinTheAxis) {
  const Scale linear({.title = "ms"}, {3.0, 47.0}, {100.0, 0.0}, true);
  EXPECT_EQ(linear.ticks(), (std::vector<double>{0, 10, 20, 30, 40, 50}));
  EXPECT_DOUBLE_EQ(linear.to_pixel(25.0), 50.0);
  EXPECT_DOUBLE_EQ(linear.to_pixel(1e9), 0.0);

  const Scale log({.title = "s", .is_log = true}, {0.0, 0.3, 70.0}, {0.0, 100.0}, true);
  EXPECT_DOUBLE_EQ(log.min(), 0.2);
  EXPECT_DOUBLE_EQ(log.max(), 100.0);
  EXPECT_DOUBLE_EQ(log.to_pixel(0.0), 0.0);
  EXPECT_NEAR(log.to_pixel(std::sqrt(0.2 * 100.0)), 50.0, 1e-9);

  for (const bool is_log : {false, true}) {
    for (const auto& values : std::vector<std::vector<double>>{
             {}, {0.0}, {5.0, 5.0}, {-1.0}, {std::numeric_limits<double>::infinity(), 2.0}}) {
      const Scale odd({.title = "", .is_log = is_log}, values, {0.0, 10.0}, true);
      EXPECT_LT(odd.min(), odd.max());
      EXPECT_FALSE(odd.ticks().empty());
      EXPECT_LT(odd.ticks().size(), 30U);
      EXPECT_TRUE(std::isfinite(odd.to_pixel(std::nan(""))));
    }
  }
}

TEST(Chart, LinesCarryNamesAndScales) {
  LineChart chart{.name = "a <b>", .x = {.title = "rate"}, .y = {.title = "ms, per token"}};
  chart.lines.push_back({.name = "one \"quoted\"",
                         .color = 2,
                         .points = {{1.0, 10.0}, {2.0, 20.0}},
                         .has_markers = true});
  chart.bands.push_back({.color = 2, .low = {{1.0, 9.0}}, .high = {{1.0, 11.0}}});
  chart.guides.push_back({.y = 50.0, .label = "objective"});
  const std::string svg = draw(chart);
  expect_well_formed(svg);
  EXPECT_NE(svg.find("data-name=\"one &quot;quoted&quot;\""), std::string::npos);
  EXPECT_NE(svg.find("data-y=\"0,50,"), std::string::npos) << "the guide is within the axis";
  EXPECT_EQ(count_of(svg, "class=\"mark fill-s2\""), 3U) << "two points and the legend";
}

TEST(Chart, EmptyDataIsDrawn) {
  expect_well_formed(draw(LineChart{}));
  expect_well_formed(draw(RangeChart{}));
  expect_well_formed(draw(BarChart{}));
  expect_well_formed(draw(PartsChart{}));
  expect_well_formed(draw(Heatmap{}));
  expect_well_formed(draw(Sheet{}));
}

TEST(Chart, BarsRangesAndPartsHaveAMarkForEachValue) {
  const std::string bars =
      draw(BarChart{.name = "degrees",
                    .y = {.title = "%"},
                    .x_title = "degree",
                    .categories = {"1", "2", "3"},
                    .series = {{.name = "short", .color = 0, .values = {90.0, 10.0, 0.0}},
                               {.name = "long", .color = 1, .values = {0.0, 50.0, 50.0}}}});
  expect_well_formed(bars);
  EXPECT_EQ(count_of(bars, "<title>"), 6U);

  const std::string ranges =
      draw(RangeChart{.name = "delays",
                      .x = {.title = "s", .is_log = true},
                      .rows = {{.label = "a", .color = 0, .values = {0.001, 0.01, 0.1, 1.0}}},
                      .guides = {{.y = 10.0, .label = "objective"}}});
  expect_well_formed(ranges);
  EXPECT_NE(ranges.find("P99 0.1"), std::string::npos);

  const std::string parts = draw(PartsChart{.name = "step",
                                            .x = {.title = "ms"},
                                            .parts = {"dense", "idle"},
                                            .rows = {{.label = "dcp", .values = {3.0, 1.0}}}});
  expect_well_formed(parts);
  EXPECT_NE(parts.find("dense 3 of ms"), std::string::npos);
}

TEST(Chart, HeatmapKeepsAValueForEachCellAndJoinsEqualColours) {
  Heatmap map{.name = "KV", .x = {.title = "s"}, .row_word = "instance"};
  for (int i = 0; i < 100; ++i) {
    map.times.push_back(i);
    map.columns.push_back({0.55F, i < 50 ? 0.0F : 1.0F});
  }
  const std::string svg = draw(map);
  expect_well_formed(svg);
  const size_t begin = svg.find("data-levels=\"") + 13;
  EXPECT_EQ(svg.find('"', begin) - begin, 200U);
  EXPECT_EQ(svg.substr(begin, 2), "Z0");
  EXPECT_EQ(count_of(svg, "<path class=\"fill-h"), 3U);
  EXPECT_EQ(count_of(svg, "M50.0 "), 2U) << "one rectangle begins each row";
  // Colours reach to the largest share only.
  for (auto& column : map.columns) column = {0.2F, 0.0F};
  EXPECT_NE(draw(map).find("<path class=\"fill-h9\""), std::string::npos);
}

TEST(Chart, ASheetStandsAlone) {
  Sheet sheet{.title = "a & b", .lines = {"one", "two"}};
  for (int i = 0; i < 3; ++i) sheet.items.push_back({"chart", draw(LineChart{})});
  const std::string svg = draw(sheet);
  expect_well_formed(svg);
  EXPECT_EQ(svg.find("var("), std::string::npos);
  EXPECT_EQ(count_of(svg, "<svg "), 4U);
}

TEST(Theme, BothThemesNameTheSameColours) {
  const std::string light = css_variables(Theme::kLight);
  const std::string dark = css_variables(Theme::kDark);
  EXPECT_EQ(count_of(light, "--"), count_of(dark, "--"));
  EXPECT_NE(light, dark);
  const std::string rules = chart_css();
  for (size_t at = rules.find("var("); at != std::string::npos; at = rules.find("var(", at + 1)) {
    const std::string name = rules.substr(at + 4, rules.find(')', at) - at - 4);
    EXPECT_NE(light.find(name + ":"), std::string::npos) << name;
  }
  EXPECT_EQ(rules.find("red"), std::string::npos) << "a rule names an unknown colour";
}

}  // namespace
}  // namespace nanocp::chart
