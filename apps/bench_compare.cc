#include "apps/bench_compare.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "apps/bench_serve_report.h"
#include "apps/command_error.h"
#include "apps/json_output.h"
#include "load/comparison.h"
#include "load/serve_metrics.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr int kSchema = 1;

struct CompareOptions {
  std::string file_a;
  std::string file_b;
  std::string json_file;
};

struct Level {
  std::string name;
  std::vector<load::RunSamples> runs;
};

// A file's runs by their load, and what it says of itself.
struct ServeResults {
  json head;                         // without runs
  std::vector<Level> levels;         // in the order of the file
  std::set<std::string> unreliable;  // loads whose client was late, or that were interrupted
};

double objective(const json& slo, const char* name) {
  const double none = std::numeric_limits<double>::infinity();
  return slo[name].is_number() ? slo[name].get<double>() : none;
}

// Throws json's exceptions where the document is of another form.
load::RunSamples samples_of(const json& run, const load::ServeObjectives& objectives) {
  const json& columns = run.at("requests");
  load::RunSamples samples{.requests = {}, .window_s = run.at("window_s")};
  if (columns.empty()) return samples;
  int64_t last_start_us = -1;
  for (size_t i = 0; i < columns.at("start_us").size(); ++i) {
    if (!columns.at("is_measured").at(i).get<bool>()) continue;
    load::RequestRecord record;
    record.error = columns.at("error").at(i);
    if (record.error == "cancelled") continue;
    record.start_us = columns.at("start_us").at(i);
    record.first_token_us = columns.at("first_token_us").at(i);
    record.last_token_us = columns.at("last_token_us").at(i);
    record.end_us = columns.at("end_us").at(i);
    record.num_output_tokens = columns.at("num_output_tokens").at(i);
    const double gap_us =
        last_start_us < 0 ? 0.0 : static_cast<double>(record.start_us - last_start_us);
    last_start_us = record.start_us;
    samples.requests.push_back({.gap_us = gap_us,
                                .ttft_us = record.ttft_us(),
                                .tpot_us = record.has_tpot() ? record.tpot_us() : -1.0,
                                .e2e_us = record.e2e_us(),
                                .num_output_tokens = record.num_output_tokens,
                                .is_finished = record.is_finished(),
                                .is_good = is_good(record, objectives)});
  }
  return samples;
}

template <typename Levels>
auto find_level(Levels& levels, const std::string& name) {
  return std::find_if(levels.begin(), levels.end(),
                      [&](const Level& level) { return level.name == name; });
}

ServeResults results_of(json document) {
  ServeResults results;
  const json& slo = document.at("slo");
  const load::ServeObjectives objectives = {.ttft_us = objective(slo, "ttft_us"),
                                            .tpot_us = objective(slo, "tpot_us"),
                                            .e2e_us = objective(slo, "e2e_us"),
                                            .percentile = slo.at("percentile")};
  for (const json& run : document.at("runs")) {
    const std::string level = serve_level(run);
    load::RunSamples samples = samples_of(run, objectives);
    const bool is_sound =
        run.at("client").at("is_on_time").get<bool>() && !run.at("is_interrupted").get<bool>();
    if (!is_sound) results.unreliable.insert(level);
    if (samples.requests.empty()) continue;
    auto found = find_level(results.levels, level);
    if (found == results.levels.end()) {
      results.levels.push_back({.name = level, .runs = {}});
      found = results.levels.end() - 1;
    }
    found->runs.push_back(std::move(samples));
  }
  document.erase("runs");
  results.head = std::move(document);
  return results;
}

Result<ServeResults> read_results(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) return not_found(file + ": cannot be read");
  json document = json::parse(in, nullptr, false);
  const bool is_ours = document.is_object() && document.value("benchmark", json()) == "serve" &&
                       document.value("schema", json()) == kSchema;
  if (!is_ours) {
    return invalid_argument(file + ": no result of nanocp bench serve --json of this version");
  }
  try {
    return results_of(std::move(document));
  } catch (const json::exception& error) {
    return invalid_argument(file + ": not as nanocp bench serve writes it: " + error.what());
  }
}

// What is not the same in both, so that a difference may be of the load instead of the server.
void print_unequal(const CompareOptions& options, const ServeResults& a, const ServeResults& b) {
  std::printf("A: %s, %s at %s, %s\n", options.file_a.c_str(), a.head.value("model", "").c_str(),
              a.head.value("base_url", "").c_str(), a.head.value("started_at", "").c_str());
  std::printf("B: %s, %s at %s, %s\n", options.file_b.c_str(), b.head.value("model", "").c_str(),
              b.head.value("base_url", "").c_str(), b.head.value("started_at", "").c_str());
  for (const char* name :
       {"endpoint", "prompts", "workload", "arrivals", "arrivals_cv", "num_requests", "duration_s",
        "warmup_s", "extra_body", "stop_at_eos", "slo"}) {
    if (a.head.value(name, json()) == b.head.value(name, json())) continue;
    std::printf("Not the same load: %s is %s in A and %s in B\n", name,
                a.head.value(name, json()).dump().c_str(),
                b.head.value(name, json()).dump().c_str());
  }
}

void print_comparison(const load::Comparison& comparison) {
  std::printf("  %-16s %12s %12s  %9s  %-20s %s\n", "", "A", "B", "change", "95 % interval",
              "B is");
  for (const load::Difference& one : comparison.differences) {
    const std::string name = one.metric + (one.unit.empty() ? "" : ", " + one.unit);
    char interval[48] = "-";
    if (std::isfinite(one.low) && std::isfinite(one.high)) {
      std::snprintf(interval, sizeof interval, "%+.1f %% to %+.1f %%", 100.0 * one.low,
                    100.0 * one.high);
    }
    std::printf("  %-16s %12.4g %12.4g  %+7.1f %%  %-20s %s\n", name.c_str(), one.a, one.b,
                100.0 * one.change, interval, to_string(one.verdict));
  }
}

void print_noise(load::Noise noise, size_t num_a, size_t num_b) {
  if (noise == load::Noise::kBetweenRuns) {
    std::printf("  Noise: what varies between the %zu runs of A and the %zu of B.\n", num_a, num_b);
    return;
  }
  std::printf(
      "  Noise: estimated within %zu run(s) of A and %zu of B, from blocks of consecutive "
      "requests. "
      "What changes from\n  run to run is not in it: a small difference may be of the day. Three "
      "seeds on each side (--seeds 1,2,3) show it.\n",
      num_a, num_b);
}

json comparison_json(const std::string& level, const load::Comparison& comparison) {
  json differences = json::array();
  for (const load::Difference& one : comparison.differences) {
    const bool has_interval = std::isfinite(one.low) && std::isfinite(one.high);
    differences.push_back({{"metric", one.metric},
                           {"unit", one.unit},
                           {"a", one.a},
                           {"b", one.b},
                           {"change", one.change},
                           {"low", has_interval ? json(one.low) : json()},
                           {"high", has_interval ? json(one.high) : json()},
                           {"verdict", to_string(one.verdict)}});
  }
  return {{"load", level},
          {"noise", comparison.noise == load::Noise::kBetweenRuns ? "between runs" : "within runs"},
          {"differences", std::move(differences)}};
}

Result<int> bench_compare(const CompareOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(const ServeResults a, read_results(options.file_a));
  NANOCP_ASSIGN_OR_RETURN(const ServeResults b, read_results(options.file_b));
  print_unequal(options, a, b);
  json levels = json::array();
  for (const auto& [level, runs_a] : a.levels) {
    const auto of_b = find_level(b.levels, level);
    if (of_b == b.levels.end()) {
      std::printf("\n%s: only in A\n", level.c_str());
      continue;
    }
    std::printf("\n%s\n", level.c_str());
    const load::Comparison comparison = compare_runs(runs_a, of_b->runs);
    print_comparison(comparison);
    print_noise(comparison.noise, runs_a.size(), of_b->runs.size());
    if (a.unreliable.contains(level) || b.unreliable.contains(level)) {
      std::printf("  UNRELIABLE: a run was interrupted, or its client did not keep up.\n");
    }
    levels.push_back(comparison_json(level, comparison));
  }
  if (levels.empty()) {
    return invalid_argument("nothing to compare: " + options.file_a + " and " + options.file_b +
                            " have no rate or concurrency in common");
  }
  std::printf("\nOf twenty intervals, about one excludes 0 by chance where nothing differs.\n");
  if (!options.json_file.empty()) {
    const json document = {{"comparison", kSchema},
                           {"a", options.file_a},
                           {"b", options.file_b},
                           {"loads", std::move(levels)}};
    NANOCP_RETURN_IF_ERROR(write_file(options.json_file, json_text(document)));
  }
  return 0;
}

}  // namespace

void add_bench_compare_command(CLI::App& bench, int& exit_code) {
  CLI::App* command =
      bench.add_subcommand("compare", "Compare two results of bench serve, and say what is noise");
  const auto options = std::make_shared<CompareOptions>();
  command->add_option("A", options->file_a, "JSON of nanocp bench serve")->required();
  command->add_option("B", options->file_b, "The same, of another server or version")->required();
  command->add_option("--json", options->json_file, "Write the differences there")
      ->type_name("FILE");
  command->callback([options, &exit_code] {
    const Result<int> result = bench_compare(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
