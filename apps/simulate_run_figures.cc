// The charts of one run.
#include <algorithm>

#include "apps/simulate_figures.h"
#include "chart/chart.h"
#include "sim/metrics.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr double kUsPerSecond = 1e6;
constexpr double kShortestDelayS = 1e-3;
// Classes of prompts have colours that policies take last.
constexpr int kClassColors[] = {5, 3, 4};

chart::Axis time_axis() {
  return {.title = "simulated seconds", .starts_at_zero = false};
}

std::vector<chart::Point> over_time(const json& run, const char* field, double unit) {
  std::vector<chart::Point> points;
  for (const json& sample : run["samples"]) {
    points.push_back(
        {sample["time_us"].get<double>() / kUsPerSecond, sample[field].get<double>() / unit});
  }
  return points;
}

Figure kv_figure(const json& run) {
  chart::Heatmap figure{.name = "KV blocks in use on each instance over time",
                        .x = time_axis(),
                        .row_word = "instance",
                        .times = {},
                        .columns = {}};
  for (const json& sample : run["samples"]) {
    figure.times.push_back(sample["time_us"].get<double>() / kUsPerSecond);
    figure.columns.push_back(sample["kv_share"].get<std::vector<float>>());
  }
  return {"KV occupancy", "Share of each instance's KV blocks in use.", chart::draw(figure)};
}

Figure requests_figure(const json& run, int color) {
  chart::LineChart figure{.name = "Running and waiting requests over time",
                          .x = time_axis(),
                          .y = {.title = "requests"},
                          .lines = {}};
  chart::Line running{.name = "running", .color = color, .points = {}};
  for (const json& sample : run["samples"]) {
    double count = 0.0;
    for (const json& rows : sample["num_rows"]) count += rows.get<double>();
    running.points.push_back({sample["time_us"].get<double>() / kUsPerSecond, count});
  }
  figure.lines.push_back(std::move(running));
  figure.lines.push_back(
      {.name = "waiting", .color = 4, .points = over_time(run, "num_waiting", 1.0)});
  return {"Running and waiting", "Requests on all instances together, and in the queue.",
          chart::draw(figure)};
}

Figure straggler_figure(const json& run, int color) {
  chart::LineChart figure{
      .name = "Straggler ratio over time",
      .x = time_axis(),
      .y = {.title = "slowest instance / mean", .starts_at_zero = false, .includes = {1.0}},
      .lines = {}};
  figure.lines.push_back(
      {.name = "mean", .color = color, .points = over_time(run, "straggler_ratio", 1.0)});
  figure.lines.push_back({.name = "worst step",
                          .color = 7,
                          .points = over_time(run, "straggler_max", 1.0),
                          .is_faint = true});
  std::reverse(figure.lines.begin(), figure.lines.end());
  return {"Straggler ratio", "Of the steps between two samples.", chart::draw(figure)};
}

Figure step_figure(const json& document, const json& run, int color) {
  chart::LineChart figure{
      .name = "Step time over time", .x = time_axis(), .y = {.title = "ms per step"}, .lines = {}};
  figure.lines.push_back(
      {.name = "mean step", .color = color, .points = over_time(run, "step_us", 1e3)});
  const double objective_ms = document["slo"]["tpot_us"].get<double>() / 1e3;
  double longest_ms = 0.0;
  for (const chart::Point& point : figure.lines[0].points) {
    longest_ms = std::max(longest_ms, point.y);
  }
  // Far above the steps it would only flatten them.
  if (objective_ms < 3.0 * longest_ms) {
    figure.guides = {{.y = objective_ms, .label = "TPOT objective"}};
  }
  return {"Step time", "Of the steps between two samples.", chart::draw(figure)};
}

Figure class_ranges(const json& run, const char* field, double unit, double least) {
  chart::RangeChart figure{.x = {.title = unit == 1e3 ? "ms per token" : "seconds"}, .rows = {}};
  double low = 1e300;
  double high = 0.0;
  for (size_t i = 0; i < sim::kClassNames.size(); ++i) {
    const std::string name(sim::kClassNames[i]);
    const json& one = run["by_class"][name];
    if (one[field]["max"].get<double>() <= 0.0 && one["num_requests"].get<int64_t>() == 0) continue;
    chart::RangeRow row{.label = name, .color = kClassColors[i]};
    constexpr const char* kFields[] = {"p50", "p90", "p99", "max"};
    for (size_t k = 0; k < row.values.size(); ++k) {
      row.values[k] = std::max(least, one[field][kFields[k]].get<double>() / unit);
    }
    low = std::min(low, row.values[0]);
    high = std::max(high, row.values[3]);
    figure.rows.push_back(std::move(row));
  }
  figure.x.is_log = least > 0.0 || high > 15.0 * low;
  figure.name = std::string(field) + " of each class of prompts";
  return {unit == 1e3 ? "TPOT by prompt length" : "Queueing delay by prompt length",
          unit == 1e3 ? "Of finished requests."
                      : "Of requests that started. A delay below 1 ms is drawn as 1 ms.",
          chart::draw(figure)};
}

Figure degree_figure(const json& run) {
  chart::BarChart figure{.name = "Context-parallel degree of requests of each class",
                         .y = {.title = "% of the class"},
                         .x_title = "degree: instances that hold a request's KV",
                         .categories = {},
                         .series = {}};
  const size_t num_degrees = run["num_requests_by_degree"].size();
  for (size_t degree = 1; degree < num_degrees; ++degree) {
    figure.categories.push_back(std::to_string(degree));
  }
  for (size_t i = 0; i < sim::kClassNames.size(); ++i) {
    const std::string name(sim::kClassNames[i]);
    const auto counts = run["by_class"][name]["num_requests_by_degree"].get<std::vector<int64_t>>();
    double total = 0.0;
    for (const int64_t count : counts) total += static_cast<double>(count);
    if (total == 0.0) continue;
    chart::BarSeries series{.name = name, .color = kClassColors[i], .values = {}};
    for (size_t degree = 1; degree < num_degrees; ++degree) {
      const auto count = degree < counts.size() ? static_cast<double>(counts[degree]) : 0.0;
      series.values.push_back(100.0 * count / total);
    }
    figure.series.push_back(std::move(series));
  }
  if (figure.series.empty()) return {};
  return {"Degree by prompt length", "Instances that held a request's KV when it finished.",
          chart::draw(figure)};
}

}  // namespace

std::vector<Figure> run_figures(const json& document, const json& run) {
  const std::vector<std::string> policies = policies_of(document);
  const auto at = std::find(policies.begin(), policies.end(), run["policy"].get<std::string>());
  const int color = static_cast<int>(at - policies.begin()) % 3;
  std::vector<Figure> figures;
  if (run.contains("samples")) {
    figures = {kv_figure(run), requests_figure(run, color), straggler_figure(run, color),
               step_figure(document, run, color)};
  }
  figures.push_back(class_ranges(run, "tpot_us", 1e3, 0.0));
  figures.push_back(class_ranges(run, "queue_us", kUsPerSecond, kShortestDelayS));
  figures.push_back(degree_figure(run));
  std::erase_if(figures, [](const Figure& figure) { return figure.svg.empty(); });
  return figures;
}

}  // namespace nanocp::apps
