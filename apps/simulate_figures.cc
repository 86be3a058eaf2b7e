#include "apps/simulate_figures.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "chart/chart.h"
#include "chart/svg.h"
#include "chart/theme.h"
#include "sim/metrics.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr double kLogFrom = 15.0;  // axes whose values differ by more are logarithmic
constexpr double kShortestDelayS = 1e-3;

using Metric = std::function<double(const json& run)>;  // NaN: none

int series_color(size_t index) {
  return static_cast<int>(index) % chart::kNumSeriesColors;
}

bool is_wide(const std::vector<double>& values) {
  double low = 1e300;
  double high = 0.0;
  for (const double value : values) {
    if (value <= 0.0) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  return high > low * kLogFrom;
}

// A line for each policy: the mean over seeds at each rate, in a band from the least to the most.
chart::LineChart over_rates(const json& document, const Metric& metric) {
  chart::LineChart figure;
  figure.x = {.title = "requests per second", .starts_at_zero = false};
  const std::vector<double> rates = rates_of(document);
  figure.x.is_log = is_wide(rates);
  const std::vector<std::string> policies = policies_of(document);
  for (size_t p = 0; p < policies.size(); ++p) {
    chart::Line line{.name = policies[p], .color = series_color(p), .has_markers = true};
    chart::Band band{.color = series_color(p)};
    for (const double rate : rates) {
      std::vector<double> values;
      for (const json& run : document["runs"]) {
        if (run["policy"] != policies[p] || run["rate_per_s"] != rate) continue;
        const double value = metric(run);
        if (std::isfinite(value)) values.push_back(value);
      }
      if (values.empty()) continue;
      double sum = 0.0;
      for (const double value : values) sum += value;
      line.points.push_back({rate, sum / static_cast<double>(values.size())});
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      band.low.push_back({rate, *low});
      band.high.push_back({rate, *high});
    }
    std::sort(line.points.begin(), line.points.end(),
              [](const auto& a, const auto& b) { return a.x < b.x; });
    if (line.points.empty()) continue;
    figure.lines.push_back(std::move(line));
    figure.bands.push_back(std::move(band));
  }
  return figure;
}

bool y_is_wide(const chart::LineChart& figure) {
  std::vector<double> values;
  for (const chart::Line& line : figure.lines) {
    for (const chart::Point& point : line.points) values.push_back(point.y);
  }
  return is_wide(values);
}

double p99_or_none(const json& percentiles, double unit) {
  const double value = percentiles["p99"].get<double>() / unit;
  return value > 0.0 ? value : std::nan("");
}

Figure tpot_over_rates(const json& document) {
  chart::LineChart figure =
      over_rates(document, [](const json& run) { return p99_or_none(run["all"]["tpot_us"], 1e3); });
  figure.name = "P99 of TPOT over the request rate";
  figure.y = {.title = "ms per token", .is_log = y_is_wide(figure)};
  figure.guides = {{.y = document["slo"]["tpot_us"].get<double>() / 1e3, .label = "objective"}};
  return {"P99 TPOT", "Time per output token that 99 of 100 finished requests stay below.",
          chart::draw(figure)};
}

Figure kept_over_rates(const json& document) {
  chart::LineChart figure =
      over_rates(document, [](const json& run) { return 100.0 * run["attainment"].get<double>(); });
  figure.name = "Share of requests that keep the TPOT objective over the request rate";
  figure.y = {.title = "% of requests", .starts_at_zero = false, .includes = {100.0}};
  figure.guides = {
      {.y = 100.0 * document["slo"]["percentile"].get<double>(), .label = "objective"}};
  return {"Requests that keep the TPOT objective",
          "Refused and unfinished requests count as misses.", chart::draw(figure)};
}

Figure queue_over_rates(const json& document) {
  chart::LineChart figure = over_rates(document, [](const json& run) {
    return std::max(kShortestDelayS, run["all"]["queue_us"]["p99"].get<double>() / 1e6);
  });
  figure.name = "P99 of the queueing delay over the request rate";
  figure.y = {.title = "seconds", .is_log = true};
  figure.guides = {{.y = document["slo"]["queue_us"].get<double>() / 1e6, .label = "objective"}};
  return {"P99 queueing delay", "From a request's arrival to its first decode step.",
          chart::draw(figure)};
}

Figure straggler_over_rates(const json& document) {
  chart::LineChart figure =
      over_rates(document, [](const json& run) { return run["straggler_ratio"].get<double>(); });
  figure.name = "Straggler ratio over the request rate";
  figure.y = {.title = "slowest instance / mean", .starts_at_zero = false, .includes = {1.0}};
  return {"Straggler ratio",
          "Time of the slowest instance before experts are dispatched, over the mean: 1 is even.",
          chart::draw(figure)};
}

// The runs of the first seed at one rate; 0: at any.
std::vector<const json*> runs_at(const json& document, double rate) {
  std::vector<const json*> runs;
  for (const json& run : document["runs"]) {
    const bool is_first_seed = run["seed"] == document["runs"][0]["seed"];
    if ((rate == 0.0 || run["rate_per_s"] == rate) && is_first_seed) runs.push_back(&run);
  }
  return runs;
}

chart::RangeRow range_row(const std::string& label, int color, const json& values, double unit,
                          double least) {
  chart::RangeRow row{.label = label, .color = color};
  constexpr const char* kFields[] = {"p50", "p90", "p99", "max"};
  for (size_t i = 0; i < row.values.size(); ++i) {
    row.values[i] = std::max(least, values[kFields[i]].get<double>() / unit);
  }
  return row;
}

Figure tpot_ranges(const json& document, const std::vector<const json*>& runs) {
  chart::RangeChart figure{.name = "TPOT of each policy", .x = {.title = "ms per token"}};
  std::vector<double> values;
  for (size_t i = 0; i < runs.size(); ++i) {
    const json& run = *runs[i];
    figure.rows.push_back(
        range_row(run["policy"], series_color(i), run["all"]["tpot_us"], 1e3, 0.0));
    values.insert(values.end(), figure.rows.back().values.begin(), figure.rows.back().values.end());
  }
  figure.x.is_log = is_wide(values);
  figure.guides = {{.y = document["slo"]["tpot_us"].get<double>() / 1e3, .label = "objective"}};
  return {"TPOT", "Of finished requests; the dashed line is the objective for P99.",
          chart::draw(figure)};
}

Figure queue_ranges(const json& document, const std::vector<const json*>& runs) {
  chart::RangeChart figure{.name = "Queueing delay of each policy",
                           .x = {.title = "seconds", .is_log = true}};
  for (size_t i = 0; i < runs.size(); ++i) {
    const json& run = *runs[i];
    figure.rows.push_back(
        range_row(run["policy"], series_color(i), run["all"]["queue_us"], 1e6, kShortestDelayS));
  }
  figure.guides = {{.y = document["slo"]["queue_us"].get<double>() / 1e6, .label = "objective"}};
  return {"Queueing delay", "From a request's arrival to its first decode step.",
          chart::draw(figure)};
}

Figure kept_by_class(const json& document, const std::vector<const json*>& runs) {
  chart::BarChart figure{.name = "Requests of each class that keep the TPOT objective",
                         .y = {.title = "% of the class that keep the TPOT objective"},
                         .x_title = "prompt tokens",
                         .categories = {},
                         .series = {}};
  if (runs.empty()) return {};
  figure.categories.assign(sim::kClassNames.begin(), sim::kClassNames.end());
  for (size_t i = 0; i < runs.size(); ++i) {
    chart::BarSeries series{.name = (*runs[i])["policy"], .color = series_color(i), .values = {}};
    for (const std::string& name : figure.categories) {
      const json& one = (*runs[i])["by_class"][name];
      const double count = one["num_requests"].get<double>();
      const double misses = one["num_tpot_misses"].get<double>();
      series.values.push_back(count > 0.0 ? 100.0 * (1.0 - misses / count) : 0.0);
    }
    figure.series.push_back(std::move(series));
  }
  figure.y.includes = {100.0};
  const double percentile = 100.0 * document["slo"]["percentile"].get<double>();
  return {"Who keeps the TPOT objective",
          "By prompt length: " + chart::short_number(percentile) + " % of each class must.",
          chart::draw(figure)};
}

Figure step_parts_figure(const std::vector<const json*>& runs, const std::string& when) {
  chart::PartsChart figure{
      .name = "Where a step's time goes", .x = {.title = "ms per step"}, .parts = {}, .rows = {}};
  for (const StepPart& part : step_parts()) figure.parts.emplace_back(part.name);
  for (const json* run : runs) {
    if (!run->contains("mean_phases")) continue;
    chart::PartsRow row{.label = (*run)["policy"], .values = {}};
    for (const StepPart& part : step_parts()) {
      row.values.push_back((*run)["mean_phases"][part.field].get<double>() / 1e3);
    }
    figure.rows.push_back(std::move(row));
  }
  if (figure.rows.empty()) return {};
  return {"Where a step's time goes" + when,
          "Means over steps and instances. Idle is the wait for the slowest instance.",
          chart::draw(figure)};
}

// Bars of the mean over seeds.
Figure found_rates_figure(const json& document) {
  chart::PartsChart figure{.name = "Largest rate that keeps the objectives",
                           .x = {.title = "requests per second"},
                           .parts = {"mean over seeds"},
                           .rows = {}};
  for (const std::string& policy : policies_of(document)) {
    double sum = 0.0;
    double count = 0.0;
    for (const json& found : document["rates"]) {
      if (found["policy"] != policy) continue;
      sum += found["rate_per_s"].get<double>();
      count += 1.0;
    }
    figure.rows.push_back({.label = policy, .values = {count > 0.0 ? sum / count : 0.0}});
  }
  return {"Largest rate that keeps the objectives", "The rest of this page is at that rate.",
          chart::draw(figure)};
}

}  // namespace

const std::vector<StepPart>& step_parts() {
  static const std::vector<StepPart> kParts = {{"dense_us", "dense", true},
                                               {"route_us", "route", true},
                                               {"attention_us", "attention", true},
                                               {"idle_us", "idle", true},
                                               {"exchange_us", "dispatch and combine", false},
                                               {"experts_us", "experts", false},
                                               {"other_us", "rest of the step", false}};
  return kParts;
}

bool is_search(const json& document) {
  return document.contains("rates");
}

std::vector<std::string> policies_of(const json& document) {
  std::vector<std::string> policies;
  for (const json& run : document["runs"]) {
    const std::string policy = run["policy"];
    if (std::find(policies.begin(), policies.end(), policy) == policies.end()) {
      policies.push_back(policy);
    }
  }
  return policies;
}

std::vector<double> rates_of(const json& document) {
  std::vector<double> rates;
  for (const json& run : document["runs"]) {
    const double rate = run["rate_per_s"];
    if (std::find(rates.begin(), rates.end(), rate) == rates.end()) rates.push_back(rate);
  }
  return rates;
}

std::vector<Figure> overview_figures(const json& document) {
  std::vector<Figure> figures;
  const std::vector<double> rates = rates_of(document);
  if (rates.empty()) return figures;
  const double top_rate = *std::max_element(rates.begin(), rates.end());
  const std::vector<const json*> runs = runs_at(document, is_search(document) ? 0.0 : top_rate);
  if (is_search(document)) {
    figures = {found_rates_figure(document), step_parts_figure(runs, ""),
               tpot_ranges(document, runs), queue_ranges(document, runs)};
  } else if (rates.size() > 1) {
    figures = {tpot_over_rates(document),
               kept_over_rates(document),
               queue_over_rates(document),
               straggler_over_rates(document),
               kept_by_class(document, runs),
               step_parts_figure(runs, " at " + chart::short_number(top_rate) + " req/s")};
    figures[4].title += " at " + chart::short_number(top_rate) + " req/s";
  } else if (runs.size() > 1) {
    figures = {tpot_ranges(document, runs), queue_ranges(document, runs),
               kept_by_class(document, runs), step_parts_figure(runs, "")};
  } else {
    // The run's own charts have the rest.
    figures = {kept_by_class(document, runs), step_parts_figure(runs, "")};
  }
  std::erase_if(figures, [](const Figure& figure) { return figure.svg.empty(); });
  return figures;
}

}  // namespace nanocp::apps
