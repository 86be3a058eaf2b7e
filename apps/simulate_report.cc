#include "apps/simulate_report.h"

#include <cstdio>

#include "apps/json_output.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

json percentiles_json(const sim::Percentiles& values) {
  return {{"mean", values.mean}, {"p50", values.p50}, {"p99", values.p99}, {"max", values.max}};
}

json class_json(const sim::ClassMetrics& metrics) {
  return {{"num_requests", metrics.num_requests},
          {"num_refused", metrics.num_refused},
          {"num_unfinished", metrics.num_unfinished},
          {"num_tpot_misses", metrics.num_tpot_misses},
          {"num_queue_misses", metrics.num_queue_misses},
          {"tpot_us", percentiles_json(metrics.tpot_us)},
          {"queue_us", percentiles_json(metrics.queue_us)}};
}

json samples_json(const std::vector<sim::Sample>& samples) {
  json result = json::array();
  for (const sim::Sample& sample : samples) {
    result.push_back({{"time_us", sample.time_us},
                      {"step_us", sample.step_us},
                      {"num_waiting", sample.num_waiting},
                      {"kv_share", sample.kv_share},
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
                   {"num_requests_by_degree", result.metrics.num_by_degree},
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
  for (size_t i = 0; i < sim::kClassNames.size(); ++i) {
    document["by_class"][std::string(sim::kClassNames[i])] = class_json(result.metrics.by_class[i]);
  }
  if (!result.samples.empty()) document["samples"] = samples_json(result.samples);
  return document;
}

json simulation_json(const SimulateOptions& options, const SimulatedCluster& cluster) {
  return {{"simulation", 1},
          {"model", cluster.model},
          {"hardware", options.hardware},
          {"num_instances", options.num_instances},
          {"num_instances_per_domain", cluster.costs.model.shape.num_instances_per_domain},
          {"kv_tokens_per_instance", cluster.kv_tokens},
          {"block_size", options.block_size},
          {"max_num_seqs", options.max_num_seqs},
          {"workload", options.trace_file.empty() ? options.workload : options.trace_file},
          {"arrivals", options.arrivals},
          {"duration_s", options.duration_s},
          {"warmup_s", options.warmup_s},
          {"clip_share", options.clip_share},
          {"slo",
           {{"tpot_us", options.objectives.tpot_us},
            {"queue_us", options.objectives.queue_us},
            {"percentile", options.objectives.percentile}}},
          {"constants", constants_json(cluster.costs)}};
}

Status write_simulation_json(const SimulateOptions& options, const SimulatedCluster& cluster,
                             const std::vector<SimulatedRun>& runs) {
  json list = json::array();
  for (const SimulatedRun& run : runs) list.push_back(simulated_run_json(run));
  json document = simulation_json(options, cluster);
  document["runs"] = std::move(list);
  return write_file(options.json_file, json_text(document));
}

}  // namespace nanocp::apps
