#include "apps/bench_load_command.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "apps/command_error.h"
#include "apps/decode_load.h"
#include "apps/engine_session.h"
#include "apps/in_range.h"
#include "apps/interrupt.h"
#include "apps/json_output.h"
#include "apps/request_metrics.h"
#include "apps/simulate_cluster.h"
#include "apps/simulate_options.h"
#include "apps/trace_file.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

struct BenchLoadOptions {
  EngineOptions engine;
  SimulateOptions load;  // of which the load, the runs, the policies and the objectives count
  bool all_rates = false;
  bool profile = false;
  std::string json_file;
};

struct LoadRun {
  std::string policy;
  double rate_per_s = 0.0;
  DecodeLoadResult result = {};
  std::string missed = {};  // the objective; empty: none
};

// What the arrivals are drawn from.
struct LoadSource {
  std::vector<sim::Arrival> trace;
  std::unique_ptr<sim::LengthMixture> mixture;  // null: the trace
};

Result<LoadSource> read_source(const SimulateOptions& options) {
  LoadSource source;
  if (!options.trace_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(source.trace, read_trace(options.trace_file));
    return source;
  }
  if (options.arrivals == "trace") {
    return invalid_argument("--arrivals trace needs --trace FILE");
  }
  NANOCP_ASSIGN_OR_RETURN(sim::LengthMixture mixture, sim::LengthMixture::parse(options.workload));
  source.mixture = std::make_unique<sim::LengthMixture>(std::move(mixture));
  return source;
}

// The same for every policy.
std::vector<sim::Arrival> arrivals_at(const BenchLoadOptions& options, const LoadSource& source,
                                      double rate) {
  return draw_arrivals(options.load, {source.mixture.get(), source.trace}, rate,
                       options.load.seeds.front());
}

SessionNeeds needs_of(const BenchLoadOptions& options, const LoadSource& source) {
  SessionNeeds needs;
  needs.any_length = options.engine.load_format == "dummy";
  needs.profile = options.profile;
  const double rate = *std::max_element(options.load.rates.begin(), options.load.rates.end());
  for (const sim::Arrival& arrival : arrivals_at(options, source, rate)) {
    needs.request_tokens.push_back(arrival.num_prompt_tokens + arrival.num_output_tokens);
  }
  return needs;
}

void print_header() {
  std::printf("%-22s %8s | %8s %8s %8s %7s | %9s | %6s %6s %6s | %s\n", "policy", "req/s",
              "TPOT ms", "P50", "P99", "kept %", "queue P99", "refus.", "unfin.", "strag.",
              "objectives");
}

void print_load_run(const LoadRun& run) {
  const sim::Metrics& metrics = run.result.metrics;
  std::printf("%-22s %8.3g | %8.2f %8.2f %8.2f %7.2f | %7.2f s | %6lld %6lld %6.2f | %s%s\n",
              run.policy.c_str(), run.rate_per_s, metrics.all.tpot_us.mean / 1e3,
              metrics.all.tpot_us.p50 / 1e3, metrics.all.tpot_us.p99 / 1e3,
              100.0 * metrics.attainment(), metrics.all.queue_us.p99 / 1e6,
              static_cast<long long>(metrics.all.num_refused),
              static_cast<long long>(metrics.all.num_unfinished), run.result.straggler_ratio,
              run.missed.empty() ? "met" : "missed: ", run.missed.c_str());
  std::fflush(stdout);
}

json run_json(const LoadRun& run) {
  const DecodeLoadResult& result = run.result;
  return {{"policy", run.policy},
          {"rate_per_s", run.rate_per_s},
          {"meets_objectives", run.missed.empty()},
          {"missed", run.missed},
          {"attainment", result.metrics.attainment()},
          {"all", class_json(result.metrics.all)},
          {"by_class", by_class_json(result.metrics)},
          {"num_preemptions", result.metrics.num_preemptions},
          {"num_steps", result.num_steps},
          {"num_tokens", result.num_tokens},
          {"duration_s", result.duration_s},
          {"mean_step_us", result.mean_step_us},
          {"straggler_ratio", result.straggler_ratio}};
}

json document_of(const BenchLoadOptions& options, const EngineSession& session,
                 const std::vector<LoadRun>& runs) {
  const SimulateOptions& load = options.load;
  json list = json::array();
  for (const LoadRun& run : runs) list.push_back(run_json(run));
  return {{"benchmark", "load"},
          {"device", session.device_name()},
          {"model", options.engine.config_file.empty() ? options.engine.model_dir
                                                       : options.engine.config_file},
          {"num_instances", options.engine.num_instances},
          {"block_size", block_size(options.engine)},
          {"kv_cache_dtype", tensor::to_string(kv_format(options.engine))},
          {"num_kv_blocks", session.num_kv_blocks()},
          {"workload", load.trace_file.empty() ? load.workload : load.trace_file},
          {"arrivals", load.arrivals},
          {"seed", load.seeds.front()},
          {"duration_s", load.duration_s},
          {"warmup_s", load.warmup_s},
          {"drain_s", load.drain_s},
          {"prefill_elsewhere", !load.prefill_here},
          {"slo", objectives_json(load.objectives)},
          {"runs", std::move(list)}};
}

Result<int> bench_load(BenchLoadOptions options) {
  NANOCP_ASSIGN_OR_RETURN(options.load.objectives, parse_slo(options.load.slo));
  NANOCP_ASSIGN_OR_RETURN(const auto spec, read_spec(options.engine));
  NANOCP_ASSIGN_OR_RETURN(const LoadSource source, read_source(options.load));
  std::sort(options.load.rates.begin(), options.load.rates.end());
  options.engine.policy = options.load.policies.front();
  NANOCP_ASSIGN_OR_RETURN(const std::unique_ptr<EngineSession> session,
                          EngineSession::open(options.engine, spec, needs_of(options, source)));
  std::printf("%d x %s, %lld KV blocks of %d tokens each\n", options.engine.num_instances,
              session->device_name().c_str(), static_cast<long long>(session->num_kv_blocks()),
              block_size(options.engine));
  print_header();
  const InterruptGuard guard;
  const SteadyClock clock;
  std::vector<LoadRun> runs;
  std::set<std::string> given_up;  // they missed at a lower rate
  for (const double rate : options.load.rates) {
    const std::vector<sim::Arrival> arrivals = arrivals_at(options, source, rate);
    for (const std::string& policy : options.load.policies) {
      if (guard.interrupted() || given_up.contains(policy)) continue;
      options.engine.policy = policy;
      NANOCP_RETURN_IF_ERROR(session->restart(options.engine, *spec));
      LoadRun run{.policy = policy, .rate_per_s = rate};
      NANOCP_ASSIGN_OR_RETURN(
          run.result, run_decode_load(session->engine(), clock, arrivals,
                                      {.objectives = options.load.objectives,
                                       .warmup_s = options.load.warmup_s,
                                       .drain_s = options.load.drain_s,
                                       .prefill_elsewhere = !options.load.prefill_here,
                                       .interrupted = [&] { return guard.interrupted(); }}));
      run.missed = run.result.metrics.missed(options.load.objectives);
      if (!run.missed.empty() && !options.all_rates) given_up.insert(policy);
      print_load_run(run);
      runs.push_back(std::move(run));
      // Each time, so that a run that is killed keeps what it has.
      if (!options.json_file.empty()) {
        NANOCP_RETURN_IF_ERROR(
            write_file(options.json_file, json_text(document_of(options, *session, runs))));
      }
    }
  }
  return guard.interrupted() ? kInterruptedExitCode : 0;
}

}  // namespace

void add_bench_load_command(CLI::App& bench, int& exit_code) {
  CLI::App* command = bench.add_subcommand(
      "load", "Requests over time through the engine, as `nanocp simulate` predicts it");
  const auto options = std::make_shared<BenchLoadOptions>();
  SimulateOptions& load = options->load;
  load.duration_s = 60.0;
  load.drain_s = 30.0;
  load.policies = {"bound/least_requests", "dcp"};
  command->add_option("MODEL_DIR", options->engine.model_dir, "Hugging Face checkpoint");
  add_load_options(*command, load);
  command
      ->add_option("--policies", load.policies,
                   "Policies, as `nanocp simulate` names them: bound/ROUTER, uniform_cp/DEGREE, "
                   "threshold_cp/DEGREE, dcp")
      ->delimiter(',')
      ->type_name("LIST")
      ->capture_default_str()
      ->group("Runs");
  command
      ->add_flag("--all-rates", options->all_rates,
                 "Run a policy at higher rates, too, when it has missed the objectives")
      ->group("Runs");
  command
      ->add_flag("--profile", options->profile,
                 "Time the phases of every step, for the straggler ratio (GPU)")
      ->group("Runs");
  command->add_option("--json", options->json_file, "Write the results there")
      ->type_name("FILE")
      ->group("Output");
  add_engine_options(*command, options->engine);
  // Named by --policies.
  command->remove_option(command->get_option("--policy"));
  command->remove_option(command->get_option("--router"));
  command->callback([options, &exit_code] {
    const Result<int> result = bench_load(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
