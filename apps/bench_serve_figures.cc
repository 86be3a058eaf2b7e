#include "apps/bench_serve_figures.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "apps/bench_serve_report.h"
#include "chart/chart.h"
#include "chart/theme.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr size_t kNumBins = 60;        // of a run's time
constexpr size_t kNumQuantiles = 100;  // of a distribution
constexpr double kLogFrom = 15.0;      // axes whose values differ by more are logarithmic

using Metric = std::function<double(const json& run)>;

struct NamedMetric {
  std::string name;
  Metric metric;
};

bool is_open_loop(const json& run) {
  return run.contains("rate_per_s");
}

double level_of(const json& run) {
  return is_open_loop(run) ? run["rate_per_s"].get<double>() : run["concurrency"].get<double>();
}

Metric percentile(const char* what, const char* which, double unit) {
  return
      [what, which, unit](const json& run) { return run["all"][what][which].get<double>() / unit; };
}

bool are_wide(const std::vector<double>& values) {
  double low = 1e300;
  double high = 0.0;
  for (const double value : values) {
    if (value > 0.0) low = std::min(low, value);
    high = std::max(high, value);
  }
  return high > low * kLogFrom;
}

bool is_wide(const chart::LineChart& figure, double chart::Point::*coordinate) {
  std::vector<double> values;
  for (const chart::Line& line : figure.lines) {
    for (const chart::Point& point : line.points) values.push_back(point.*coordinate);
  }
  return are_wide(values);
}

// A line for each metric: the mean over seeds at each level, in a band from the least to the most.
chart::LineChart over_levels(const json& document, const std::vector<NamedMetric>& metrics) {
  const json& runs = document["runs"];
  std::vector<double> levels;
  for (const json& run : runs) levels.push_back(level_of(run));
  std::sort(levels.begin(), levels.end());
  levels.erase(std::unique(levels.begin(), levels.end()), levels.end());
  chart::LineChart figure;
  figure.x = {.title = is_open_loop(runs[0]) ? "requests per second" : "requests at a time",
              .is_log = levels.back() > levels.front() * kLogFrom,
              .starts_at_zero = false};
  for (size_t m = 0; m < metrics.size(); ++m) {
    const int color = static_cast<int>(m) % chart::kNumSeriesColors;
    chart::Line line{.name = metrics[m].name, .color = color, .has_markers = true};
    chart::Band band{.color = color};
    for (const double level : levels) {
      std::vector<double> values;
      for (const json& run : runs) {
        if (level_of(run) == level) values.push_back(metrics[m].metric(run));
      }
      double sum = 0.0;
      for (const double value : values) sum += value;
      const auto [low, high] = std::minmax_element(values.begin(), values.end());
      line.points.push_back({level, sum / static_cast<double>(values.size())});
      band.low.push_back({level, *low});
      band.high.push_back({level, *high});
    }
    figure.lines.push_back(std::move(line));
    figure.bands.push_back(std::move(band));
  }
  return figure;
}

void add_objective(const json& document, const char* name, double unit,
                   std::vector<chart::Guide>& guides) {
  const json& value = document["slo"][name];
  if (value.is_number()) {
    guides.push_back({.y = value.get<double>() / unit, .label = "objective"});
  }
}

Figure latency_over_levels(const json& document, const char* what, const char* title,
                           const char* caption) {
  chart::LineChart figure = over_levels(document, {{"P50", percentile(what, "p50", 1e3)},
                                                   {"P90", percentile(what, "p90", 1e3)},
                                                   {"P99", percentile(what, "p99", 1e3)}});
  figure.name = std::string(title) + " over the load";
  figure.y = {.title = "ms", .is_log = is_wide(figure, &chart::Point::y)};
  add_objective(document, what, 1e3, figure.guides);
  return {title, caption, chart::draw(figure)};
}

Figure throughput_over_levels(const json& document) {
  chart::LineChart figure = over_levels(
      document,
      {{"output", [](const json& run) { return run["output_tokens_per_s"].get<double>(); }}});
  figure.name = "Output tokens per second over the load";
  figure.y = {.title = "tokens per second"};
  return {"Output throughput",
          "Tokens of requests that finished, over the time until the last did.",
          chart::draw(figure)};
}

Figure goodput_over_levels(const json& document) {
  chart::LineChart figure = over_levels(
      document, {{"finished", [](const json& run) { return run["requests_per_s"].get<double>(); }},
                 {"good", [](const json& run) { return run["goodput_per_s"].get<double>(); }}});
  figure.name = "Requests per second over the load";
  figure.y = {.title = "requests per second"};
  return {"Goodput", "Requests that finished, and those that kept every objective.",
          chart::draw(figure)};
}

// What a run's columns say of one request.
struct Row {
  double start_s = 0.0;
  double first_s = 0.0;
  double last_s = 0.0;
  double end_s = 0.0;
  double num_tokens = 0.0;
  bool is_finished = false;
  bool is_measured = false;
};

std::vector<Row> rows_of(const json& run) {
  std::vector<Row> rows;
  const json& columns = run["requests"];
  if (!columns.contains("start_us")) return rows;
  for (size_t i = 0; i < columns["start_us"].size(); ++i) {
    const auto seconds = [&](const char* name) { return columns[name][i].get<double>() / 1e6; };
    Row row;
    row.start_s = seconds("start_us");
    row.first_s = seconds("first_token_us");
    row.last_s = seconds("last_token_us");
    row.end_s = seconds("end_us");
    row.num_tokens = columns["num_output_tokens"][i];
    row.is_finished = columns["error"][i].get_ref<const std::string&>().empty();
    row.is_measured = columns["is_measured"][i];
    rows.push_back(row);
  }
  return rows;
}

double end_of(const std::vector<Row>& rows) {
  double end_s = 1e-6;
  for (const Row& row : rows) end_s = std::max(end_s, row.end_s);
  return end_s;
}

// Adds `amount`, spread evenly from `from` to `to`, to bins of `width` seconds.
void spread(double from, double to, double amount, double width, std::vector<double>& bins) {
  const auto bin_of = [&](double time) {
    return std::min(bins.size() - 1, static_cast<size_t>(std::max(0.0, time) / width));
  };
  if (to - from < 1e-9) {
    bins[bin_of(from)] += amount;
    return;
  }
  for (size_t i = bin_of(from); i <= bin_of(to); ++i) {
    const double begin = std::max(from, static_cast<double>(i) * width);
    const double end = i + 1 == bins.size() ? to : std::min(to, static_cast<double>(i + 1) * width);
    bins[i] += amount * std::max(0.0, end - begin) / (to - from);
  }
}

chart::Line line_of_bins(const std::vector<double>& bins, double width, double scale) {
  chart::Line line;
  for (size_t i = 0; i < bins.size(); ++i) {
    line.points.push_back({(static_cast<double>(i) + 0.5) * width, bins[i] * scale});
  }
  return line;
}

struct OverTime {
  const char* title;
  const char* name;  // of the chart
  const char* unit;
  const char* note;
};

// What `spread_row(row, width, bins)` adds to bins, per second.
template <typename SpreadRow>
Figure over_time(const OverTime& about, const std::vector<Row>& rows, SpreadRow spread_row) {
  const double width = end_of(rows) / kNumBins;
  std::vector<double> bins(kNumBins);
  for (const Row& row : rows) spread_row(row, width, bins);
  chart::LineChart figure{.name = about.name};
  figure.x = {.title = "seconds"};
  figure.y = {.title = about.unit};
  figure.lines.push_back(line_of_bins(bins, width, 1.0 / width));
  return {about.title, about.note, chart::draw(figure)};
}

Figure running_over_time(const std::vector<Row>& rows) {
  return over_time(
      {.title = "Requests under way",
       .name = "Requests under way over time",
       .unit = "requests under way",
       .note = "In an open loop this grows without bound where the server cannot keep up."},
      rows, [](const Row& row, double width, std::vector<double>& bins) {
        spread(row.start_s, row.end_s, row.end_s - row.start_s, width, bins);
      });
}

Figure tokens_over_time(const std::vector<Row>& rows) {
  return over_time(
      {.title = "Output tokens",
       .name = "Output tokens per second over time",
       .unit = "tokens per second",
       .note = "Of requests that finished, spread evenly between each one's first and last."},
      rows, [](const Row& row, double width, std::vector<double>& bins) {
        if (row.is_finished) spread(row.first_s, row.last_s, row.num_tokens, width, bins);
      });
}

// One percentile of what started in each bin.
chart::Line percentile_line(const std::vector<std::vector<double>>& bins, double width,
                            double sim::Percentiles::*which) {
  chart::Line line;
  for (size_t i = 0; i < bins.size(); ++i) {
    if (bins[i].empty()) continue;
    line.points.push_back(
        {(static_cast<double>(i) + 0.5) * width, sim::percentiles(bins[i]).*which});
  }
  return line;
}

Figure ttft_over_time(const json& document, const std::vector<Row>& rows) {
  const size_t num_bins = kNumBins / 2;
  const double width = end_of(rows) / static_cast<double>(num_bins);
  std::vector<std::vector<double>> bins(num_bins);
  for (const Row& row : rows) {
    if (!row.is_finished) continue;
    const auto bin = static_cast<size_t>(std::max(0.0, row.start_s) / width);
    bins[std::min(num_bins - 1, bin)].push_back((row.first_s - row.start_s) * 1e3);
  }
  chart::LineChart figure{.name = "TTFT over time"};
  chart::Line median = percentile_line(bins, width, &sim::Percentiles::p50);
  median.name = "P50";
  chart::Line largest = percentile_line(bins, width, &sim::Percentiles::max);
  largest.name = "largest";
  largest.color = 1;
  figure.lines = {std::move(median), std::move(largest)};
  figure.x = {.title = "start of the request, seconds"};
  figure.y = {.title = "ms", .is_log = is_wide(figure, &chart::Point::y)};
  add_objective(document, "ttft_us", 1e3, figure.guides);
  return {"TTFT over time", "Of the requests that started in each interval.", chart::draw(figure)};
}

chart::Line distribution(const char* name, int color, std::vector<double> values_ms) {
  chart::Line line{.name = name, .color = color};
  std::sort(values_ms.begin(), values_ms.end());
  for (size_t i = 0; i <= kNumQuantiles && !values_ms.empty(); ++i) {
    const size_t at = i * (values_ms.size() - 1) / kNumQuantiles;
    line.points.push_back({values_ms[at], 100.0 * static_cast<double>(at + 1) /
                                              static_cast<double>(values_ms.size())});
  }
  return line;
}

Figure distributions(const std::vector<Row>& rows) {
  std::vector<double> ttft_ms;
  std::vector<double> tpot_ms;
  for (const Row& row : rows) {
    if (!row.is_finished || !row.is_measured) continue;
    ttft_ms.push_back((row.first_s - row.start_s) * 1e3);
    if (row.num_tokens > 1.0) {
      tpot_ms.push_back((row.last_s - row.first_s) * 1e3 / (row.num_tokens - 1.0));
    }
  }
  chart::LineChart figure{.name = "Distributions of TTFT and TPOT"};
  figure.lines.push_back(distribution("TTFT", 0, std::move(ttft_ms)));
  if (!tpot_ms.empty()) figure.lines.push_back(distribution("TPOT", 1, std::move(tpot_ms)));
  figure.x = {.title = "ms", .is_log = is_wide(figure, &chart::Point::x), .starts_at_zero = false};
  figure.y = {.title = "% of requests below"};
  return {"Distributions", "Share of the measured requests below each time.", chart::draw(figure)};
}

// From P50 to the largest, for each length of prompts.
Figure by_class(const json& document, const json& run, const char* what, const char* title) {
  chart::RangeChart figure{.name = std::string(title) + " by prompt length"};
  std::vector<double> values;
  const auto add = [&](const std::string& label, const json& one, int color) {
    if (one["num_finished"].get<int64_t>() == 0) return;
    const auto ms = [&](const char* which) { return one[what][which].get<double>() / 1e3; };
    figure.rows.push_back(
        {.label = label, .color = color, .values = {ms("p50"), ms("p90"), ms("p99"), ms("max")}});
    for (const double value : figure.rows.back().values) values.push_back(value);
  };
  add("all", run["all"], 0);
  int color = 1;
  for (const std::string_view name : sim::kClassNames) {
    add(std::string(name), run["by_class"][std::string(name)], color++);
  }
  figure.x = {.title = "ms", .is_log = are_wide(values)};
  add_objective(document, what, 1e3, figure.guides);
  return {std::string(title) + " by prompt length", "P50, P90, P99 and the largest.",
          chart::draw(figure)};
}

Figure errors_figure(const json& run) {
  chart::BarChart figure{.name = "Errors by kind"};
  figure.y = {.title = "requests"};
  chart::BarSeries series{.name = "errors", .color = 1};
  for (const auto& [kind, error] : run["errors"].items()) {
    figure.categories.push_back(kind);
    series.values.push_back(error["count"].get<double>());
  }
  figure.series.push_back(std::move(series));
  return {"Errors", "Measured requests that failed, by kind.", chart::draw(figure)};
}

}  // namespace

std::vector<Figure> serve_overview_figures(const json& document) {
  return {
      latency_over_levels(document, "ttft_us", "TTFT",
                          "Time to the first token, from the start of the request."),
      latency_over_levels(document, "tpot_us", "TPOT", "Time per output token behind the first."),
      throughput_over_levels(document), goodput_over_levels(document)};
}

std::vector<Figure> serve_run_figures(const json& document, const json& run) {
  const std::vector<Row> rows = rows_of(run);
  std::vector<Figure> figures;
  if (run["all"]["num_finished"].get<int64_t>() > 0) {
    figures = {ttft_over_time(document, rows),
               running_over_time(rows),
               tokens_over_time(rows),
               distributions(rows),
               by_class(document, run, "ttft_us", "TTFT"),
               by_class(document, run, "tpot_us", "TPOT")};
  }
  if (!run["errors"].empty()) figures.push_back(errors_figure(run));
  return figures;
}

}  // namespace nanocp::apps
