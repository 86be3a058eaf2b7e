#include "apps/bench_serve_report.h"

#include <cmath>
#include <cstdio>

#include "apps/generation_report.h"
#include "apps/grouped_number.h"
#include "chart/svg.h"

namespace nanocp::apps {
namespace {

using load::RequestRecord;
using nlohmann::json;

json percentiles_json(const sim::Percentiles& values) {
  return {{"mean", values.mean},
          {"p50", values.p50},
          {"p90", values.p90},
          {"p99", values.p99},
          {"max", values.max}};
}

json class_json(const load::ServeClass& one) {
  return {{"num_requests", one.num_requests},
          {"num_finished", one.num_finished},
          {"num_good", one.num_good},
          {"good_share", one.good_share()},
          {"num_prompt_tokens", one.num_prompt_tokens},
          {"num_output_tokens", one.num_output_tokens},
          {"ttft_us", percentiles_json(one.ttft_us)},
          {"tpot_us", percentiles_json(one.tpot_us)},
          {"itl_us", percentiles_json(one.itl_us)},
          {"e2e_us", percentiles_json(one.e2e_us)}};
}

// A list for each field, all in the order of arrivals.
json requests_json(const std::vector<RequestRecord>& records) {
  json columns = json::object();
  for (const RequestRecord& record : records) {
    columns["arrival_us"].push_back(record.arrival_us);
    columns["start_us"].push_back(record.start_us);
    columns["first_token_us"].push_back(record.first_token_us);
    columns["last_token_us"].push_back(record.last_token_us);
    columns["end_us"].push_back(record.end_us);
    columns["num_prompt_tokens"].push_back(record.num_prompt_tokens);
    columns["num_output_tokens"].push_back(record.num_output_tokens);
    columns["itl_max_us"].push_back(record.itl_max_us);
    columns["is_measured"].push_back(record.is_measured);
    columns["error"].push_back(record.is_cancelled ? json("cancelled") : json(record.error));
  }
  return columns;
}

json objective_json(double value_us) {
  return std::isfinite(value_us) ? json(value_us) : json(nullptr);
}

void print_notes(const BenchServeOptions& options, const ServeRun& run) {
  const load::ServeMetrics& metrics = run.metrics;
  for (const auto& [kind, error] : metrics.errors) {
    std::printf("  %lld x %s: %s\n", static_cast<long long>(error.count), kind.c_str(),
                terminal_safe(error.example).c_str());
  }
  if (metrics.num_cancelled > 0) {
    std::printf("  interrupted: %lld requests were cancelled and are not counted\n",
                static_cast<long long>(metrics.num_cancelled));
  }
  if (metrics.num_without_usage > 0) {
    std::printf("  %lld answers came without usage: their tokens are events that brought text\n",
                static_cast<long long>(metrics.num_without_usage));
  }
  if (metrics.num_short > 0) {
    std::printf("  %lld answers are shorter than was asked for\n",
                static_cast<long long>(metrics.num_short));
  }
  const load::ClientLag& lag = run.result.lag;
  if (!is_client_on_time(options, lag)) {
    std::printf(
        "  UNRELIABLE: the client itself was late, by %.1f ms at the start of requests and %.1f ms "
        "in its loop (P99; limit %.4g ms). Use more --threads or an idle machine\n",
        lag.start_us.p99 / 1e3, lag.loop_us.p99 / 1e3, options.max_lag_ms);
  }
}

}  // namespace

void print_serve_header() {
  std::printf("%-16s %5s | %8s %6s | %8s %9s | %8s %8s %8s | %7s %7s %7s | %7s | %7s | %6s %8s\n",
              "load", "seed", "finished", "errors", "req/s", "tokens/s", "TTFT P50", "P90", "P99",
              "TPOT", "P90", "P99", "ITL P99", "e2e P50", "good %", "good/s");
}

void print_serve_run(const BenchServeOptions& options, const ServeRun& run) {
  const load::ServeMetrics& metrics = run.metrics;
  const load::ServeClass& all = metrics.all;
  const auto ms = [](double us) { return us / 1e3; };
  std::printf(
      "%-16s %5llu | %8s %6lld | %8.2f %9.1f | %8.1f %8.1f %8.1f | %7.2f %7.2f %7.2f | %7.1f | "
      "%5.2f s | %6.1f %8.2f\n",
      serve_level(run.rate_per_s, run.concurrency).c_str(),
      static_cast<unsigned long long>(run.seed), grouped(all.num_finished).c_str(),
      static_cast<long long>(all.num_requests - all.num_finished), metrics.requests_per_s,
      metrics.output_tokens_per_s, ms(all.ttft_us.p50), ms(all.ttft_us.p90), ms(all.ttft_us.p99),
      ms(all.tpot_us.p50), ms(all.tpot_us.p90), ms(all.tpot_us.p99), ms(all.itl_us.p99),
      all.e2e_us.p50 / 1e6, 100.0 * all.good_share(), metrics.goodput_per_s);
  print_notes(options, run);
  std::fflush(stdout);
}

bool is_client_on_time(const BenchServeOptions& options, const load::ClientLag& lag) {
  const double limit_us = options.max_lag_ms * 1e3;
  return lag.start_us.p99 <= limit_us && lag.loop_us.p99 <= limit_us;
}

json serve_json(const BenchServeOptions& options, const ServeTarget& target,
                const std::string& started_at) {
  const load::ServeObjectives& objectives = options.objectives;
  return {{"benchmark", "serve"},
          {"schema", 1},
          {"version", NANOCP_VERSION},
          {"started_at", started_at},
          {"base_url", options.base_url},
          {"endpoint", options.endpoint},
          {"model", target.model},
          {"prompts", target.prompts},
          {"extra_body", options.extra_body},
          {"stop_at_eos", options.stops_at_eos},
          {"workload", options.trace_file.empty() ? options.workload : options.trace_file},
          {"arrivals", options.arrivals},
          {"arrivals_cv", options.arrivals_cv},
          {"num_requests", options.num_requests},
          {"duration_s", options.duration_s},
          {"warmup_s", options.warmup_s},
          {"max_lag_ms", options.max_lag_ms},
          {"slo",
           {{"ttft_us", objective_json(objectives.ttft_us)},
            {"tpot_us", objective_json(objectives.tpot_us)},
            {"e2e_us", objective_json(objectives.e2e_us)},
            {"percentile", objectives.percentile}}},
          {"runs", json::array()}};
}

json serve_run_json(const BenchServeOptions& options, const ServeRun& run) {
  const load::ServeMetrics& metrics = run.metrics;
  json errors = json::object();
  for (const auto& [kind, error] : metrics.errors) {
    errors[kind] = {{"count", error.count}, {"example", error.example}};
  }
  json by_class = json::object();
  for (size_t i = 0; i < sim::kClassNames.size(); ++i) {
    by_class[std::string(sim::kClassNames[i])] = class_json(metrics.by_class[i]);
  }
  const load::ClientLag& lag = run.result.lag;
  json document = {{"seed", run.seed},
                   {"is_interrupted", run.result.is_interrupted},
                   {"meets_objectives", metrics.meets(options.objectives)},
                   {"window_s", metrics.window_s},
                   {"requests_per_s", metrics.requests_per_s},
                   {"output_tokens_per_s", metrics.output_tokens_per_s},
                   {"total_tokens_per_s", metrics.total_tokens_per_s},
                   {"goodput_per_s", metrics.goodput_per_s},
                   {"mean_running", metrics.mean_running},
                   {"max_running", metrics.max_running},
                   {"num_cancelled", metrics.num_cancelled},
                   {"num_unmeasured", metrics.num_unmeasured},
                   {"num_short", metrics.num_short},
                   {"num_without_usage", metrics.num_without_usage},
                   {"all", class_json(metrics.all)},
                   {"by_class", std::move(by_class)},
                   {"errors", std::move(errors)},
                   {"client",
                    {{"is_on_time", is_client_on_time(options, lag)},
                     {"start_lag_us", percentiles_json(lag.start_us)},
                     {"loop_lag_us", percentiles_json(lag.loop_us)}}},
                   {"requests", requests_json(run.result.records)}};
  if (run.concurrency > 0) {
    document["concurrency"] = run.concurrency;
  } else {
    document["rate_per_s"] = run.rate_per_s;
  }
  return document;
}

std::string serve_level(double rate_per_s, int concurrency) {
  if (concurrency > 0) return "concurrency " + std::to_string(concurrency);
  return chart::short_number(rate_per_s) + " req/s";
}

std::string serve_level(const json& run) {
  return serve_level(run.value("rate_per_s", 0.0), run.value("concurrency", 0));
}

}  // namespace nanocp::apps
