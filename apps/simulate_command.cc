#include "apps/simulate_command.h"

#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "apps/capacity_plan.h"
#include "apps/command_error.h"
#include "apps/find_rate.h"
#include "apps/png_file.h"
#include "apps/progress_bar.h"
#include "apps/simulate_cluster.h"
#include "apps/simulate_options.h"
#include "apps/simulate_report.h"

namespace nanocp::apps {
namespace {

Status simulate_runs(const SimulateOptions& options, const Cluster& cluster) {
  print_run_header();
  std::vector<SimulatedRun> runs;
  for (const uint64_t seed : options.seeds) {
    for (const double rate : options.rates) {
      for (const std::string& policy : options.policies) {
        SimulatedRun named;
        named.policy = policy;
        named.rate_per_s = rate;
        named.seed = seed;
        ProgressBar bar(policy, ProgressBar::Unit::kNone);
        NANOCP_ASSIGN_OR_RETURN(SimulatedRun run,
                                run_one(options, cluster, named, [&bar](double done) {
                                  bar.update(std::llround(done * 1e6), 1'000'000);
                                  return true;
                                }));
        bar.finish();
        print_run(run, options.objectives);
        runs.push_back(std::move(run));
      }
    }
  }
  return write_runs(options, cluster, runs);
}

Status search_rates(const SimulateOptions& options, const Cluster& cluster) {
  print_rate_header();
  NANOCP_ASSIGN_OR_RETURN(const auto rates, find_rates(options, cluster, print_rate));
  return write_rates(options, cluster, rates);
}

Status make_plan(const SimulateOptions& options) {
  if (options.rates.size() != 1) return invalid_argument("--plan needs one --rate");
  if (options.wants_page()) return invalid_argument("--plan has no page or picture; use --json");
  NANOCP_ASSIGN_OR_RETURN(const CapacityPlan plan, plan_capacity(options));
  print_plan(options, plan);
  if (options.json_file.empty()) return ok_status();
  return write_plan_json(options, plan);
}

// A search measures a steady state, and enough requests for percentiles by class.
void set_search_defaults(const CLI::App& command, SimulateOptions& options) {
  if (command.count("--warmup") == 0) options.warmup_s = 60.0;
  if (command.count("--min-requests") == 0) options.num_requests_min = 4000;
}

Result<int> simulate(SimulateOptions options) {
  NANOCP_ASSIGN_OR_RETURN(options.objectives, parse_slo(options.slo));
  if (!options.png_file.empty()) NANOCP_RETURN_IF_ERROR(check_png_converter());
  if (options.plan) {
    NANOCP_RETURN_IF_ERROR(make_plan(options));
    return 0;
  }
  NANOCP_ASSIGN_OR_RETURN(const Cluster cluster, make_cluster(options));
  std::printf("%s on %d instances of %s, %lld KV tokens each\n", cluster.model.c_str(),
              options.num_instances, options.hardware.c_str(),
              static_cast<long long>(cluster.kv_tokens));
  NANOCP_RETURN_IF_ERROR(options.find_rate ? search_rates(options, cluster)
                                           : simulate_runs(options, cluster));
  return 0;
}

}  // namespace

void add_simulate_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(
      "simulate", "Predict TPOT and the load that machines bear, with the engine's own scheduler");
  const auto options = std::make_shared<SimulateOptions>();
  add_simulate_options(*command, *options);
  command->callback([options, command, &exit_code] {
    if (options->find_rate || options->plan) set_search_defaults(*command, *options);
    const Result<int> result = simulate(*options);
    exit_code = result.ok() ? result.value() : report_error(result.error());
  });
}

}  // namespace nanocp::apps
