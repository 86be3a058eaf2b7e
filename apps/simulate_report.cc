#include "apps/simulate_report.h"

#include <cmath>
#include <cstdio>
#include <utility>

#include "apps/json_output.h"
#include "apps/png_file.h"
#include "apps/request_metrics.h"
#include "apps/simulate_page.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

// As many digits as are worth keeping: a page holds thousands of these.
double rounded(double value, double per_unit) {
  return std::round(value * per_unit) / per_unit;
}

json samples_json(const std::vector<sim::Sample>& samples) {
  json result = json::array();
  for (const sim::Sample& sample : samples) {
    json kv_share = json::array();
    for (const float share : sample.kv_share) {
      kv_share.push_back(rounded(static_cast<double>(share), 1e4));
    }
    result.push_back({{"time_us", sample.time_us},
                      {"num_steps", sample.num_steps},
                      {"step_us", rounded(sample.step_us, 10.0)},
                      {"straggler_ratio", rounded(sample.straggler_ratio, 1e4)},
                      {"straggler_max", rounded(sample.straggler_max, 1e4)},
                      {"num_waiting", sample.num_waiting},
                      {"kv_share", std::move(kv_share)},
                      {"num_rows", sample.num_rows}});
  }
  return result;
}

// As text: readers of JSON may take numbers for doubles.
std::string hex_text(uint64_t value) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(value));
  return text;
}

json refusals_json(const sim::SimulationResult& result) {
  json list = json::array();
  for (const sim::Refusal& refusal : result.refusals) {
    list.push_back({{"request", refusal.record}, {"reason", refusal.reason}});
  }
  return list;
}

// A list per field of the instances, [num_instances] each.
json timeline_step_json(const sim::TimelineStep& step) {
  json result = {{"step", step.step},
                 {"start_us", step.start_us},
                 {"exchange_us", rounded(step.exchange_us, 10.0)},
                 {"experts_us", rounded(step.experts_us, 10.0)},
                 {"other_us", rounded(step.other_us, 10.0)}};
  for (const sim::InstanceTimes& one : step.instances) {
    result["dense_us"].push_back(rounded(one.dense_us, 10.0));
    result["route_us"].push_back(rounded(one.route_us, 10.0));
    result["attention_us"].push_back(rounded(one.attention_us, 10.0));
    result["idle_us"].push_back(rounded(one.idle_us, 10.0));
    result["num_rows"].push_back(one.num_rows);
    result["num_kv_tokens"].push_back(one.num_kv_tokens);
  }
  return result;
}

void add_recording(const sim::Recording& recording, json& document) {
  if (!recording.samples.empty()) document["samples"] = samples_json(recording.samples);
  if (!recording.timeline.empty()) {
    json& timeline = document["timeline"] = json::array();
    for (const sim::TimelineStep& step : recording.timeline) {
      timeline.push_back(timeline_step_json(step));
    }
  }
  if (recording.samples.empty() && recording.timeline.empty()) return;
  const sim::PhaseTimes& phases = recording.phases;
  document["mean_phases"] = {
      {"dense_us", phases.dense_us},         {"route_us", phases.route_us},
      {"attention_us", phases.attention_us}, {"idle_us", phases.idle_us},
      {"exchange_us", phases.exchange_us},   {"experts_us", phases.experts_us},
      {"other_us", phases.other_us}};
}

json constants_json(const sim::DerivedCosts& costs) {
  json result = json::object();
  for (const auto& field : scheduler::cost_constant_fields()) {
    const std::string name(field.name);
    result[name] = {{"value", costs.model.constants.*field.value},
                    {"unit", field.unit},
                    {"source", costs.sources.at(name)}};
  }
  return result;
}

}  // namespace

void print_run_header() {
  std::printf("%-22s %8s %6s | %8s %8s %8s %7s | %9s | %6s %6s %6s | %s\n", "policy", "req/s",
              "seed", "TPOT ms", "P50", "P99", "kept %", "queue P99", "refus.", "unfin.", "strag.",
              "objectives");
}

void print_run(const SimulatedRun& run, const sim::Objectives& objectives) {
  const sim::Metrics& metrics = run.result.metrics;
  const bool meets = metrics.meets(objectives) && !run.result.is_stopped;
  std::printf("%-22s %8.3g %6llu | %8.2f %8.2f %8.2f %7.2f | %7.2f s | %6lld %6lld %6.2f | %s\n",
              run.policy.c_str(), run.rate_per_s, static_cast<unsigned long long>(run.seed),
              metrics.all.tpot_us.mean / 1e3, metrics.all.tpot_us.p50 / 1e3,
              metrics.all.tpot_us.p99 / 1e3, 100.0 * metrics.attainment(),
              metrics.all.queue_us.p99 / 1e6, static_cast<long long>(metrics.all.num_refused),
              static_cast<long long>(metrics.all.num_unfinished), run.result.straggler_ratio,
              meets                   ? "met"
              : run.result.is_stopped ? "missed (stopped)"
                                      : "missed");
  std::fflush(stdout);
}

json simulated_run_json(const SimulatedRun& run) {
  const sim::SimulationResult& result = run.result;
  json document = {{"policy", run.policy},
                   {"rate_per_s", run.rate_per_s},
                   {"seed", run.seed},
                   {"meets_objectives", result.missed.empty()},
                   {"is_stopped", result.is_stopped},
                   {"missed", result.missed},
                   {"attainment", result.metrics.attainment()},
                   {"all", class_json(result.metrics.all)},
                   {"num_requests_by_degree", result.metrics.all.num_by_degree},
                   {"num_preemptions", result.metrics.num_preemptions},
                   {"num_cancelled", result.metrics.num_cancelled},
                   {"num_steps", result.num_steps},
                   {"num_tokens", result.num_tokens},
                   {"end_us", result.end_us},
                   {"mean_step_us", result.mean_step_us},
                   {"mean_rows", result.mean_rows},
                   {"straggler_ratio", result.straggler_ratio},
                   {"local_share", result.local_share},
                   {"exchange_share", result.exchange_share},
                   {"experts_share", result.experts_share},
                   {"trace_hash", hex_text(result.trace_hash)},
                   {"refusals", refusals_json(result)},
                   {"wall_s", run.wall_s}};
  document["by_class"] = by_class_json(result.metrics);
  add_recording(result.recording, document);
  return document;
}

std::string workload_name(const SimulateOptions& options) {
  return options.trace_file.empty() ? options.workload : options.trace_file;
}

json simulation_json(const SimulateOptions& options, const Cluster& cluster) {
  return {{"simulation", 1},
          {"model", cluster.model},
          {"hardware", options.hardware},
          {"num_instances", options.num_instances},
          {"num_instances_per_domain", cluster.costs.model.shape.num_instances_per_domain},
          {"kv_tokens_per_instance", cluster.kv_tokens},
          {"block_size", options.block_size},
          {"max_num_seqs", options.max_num_seqs},
          {"workload", workload_name(options)},
          {"arrivals", options.arrivals},
          {"duration_s", options.duration_s},
          {"warmup_s", options.warmup_s},
          {"clip_share", options.clip_share},
          {"slo", objectives_json(options.objectives)},
          {"constants", constants_json(cluster.costs)}};
}

Status write_simulation(const SimulateOptions& options, const json& document) {
  if (!options.json_file.empty()) {
    NANOCP_RETURN_IF_ERROR(write_file(options.json_file, json_text(document)));
  }
  if (!options.html_file.empty()) {
    NANOCP_RETURN_IF_ERROR(write_file(options.html_file, simulation_page(document)));
  }
  if (options.png_file.empty()) return ok_status();
  return write_png(options.png_file, simulation_picture(document));
}

Status write_runs(const SimulateOptions& options, const Cluster& cluster,
                  const std::vector<SimulatedRun>& runs) {
  json list = json::array();
  for (const SimulatedRun& run : runs) list.push_back(simulated_run_json(run));
  json document = simulation_json(options, cluster);
  document["runs"] = std::move(list);
  return write_simulation(options, document);
}

}  // namespace nanocp::apps
