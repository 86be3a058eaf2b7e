#include "apps/simulate_options.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "apps/in_range.h"
#include "apps/load_flags.h"
#include "apps/slo.h"
#include "apps/split_flags.h"

namespace nanocp::apps {
namespace {

constexpr int kInstancesMax = 4096;
constexpr int64_t kTokensMax = int64_t{1} << 40;
constexpr double kSecondsMax = 1e8;
constexpr int kPageSamplesMax = 500;
constexpr int kPageStates = 20'000;  // instances times samples of a run on a page

void add_cluster_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Model and machine";
  command
      .add_option("MODEL", options.model,
                  "A model directory, a config.json, or a bundled config such as qwen3-30b-a3b")
      ->capture_default_str();
  command
      .add_option("--hardware", options.hardware,
                  "Hardware profile: a file, or a bundled one such as h100-nvlink")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--constants", options.constants_file,
                  "Constants that nanocp calibrate measured, instead of derived ones")
      ->type_name("FILE")
      ->group(group);
  command.add_option("--instances", options.num_instances, "Instances, a GPU each")
      ->check(in_range(1, kInstancesMax))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--instances-per-domain", options.num_per_domain,
                  "Instances joined by fast links (default: as the profile says)")
      ->check(in_range(1, kInstancesMax))
      ->type_name("N")
      ->group(group);
  command
      .add_option("--gpu-memory-utilization", options.memory_utilization,
                  "Share of a GPU's memory for weights, activations and KV blocks together")
      ->check(in_range(0.01, 1.0))
      ->type_name("SHARE")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--kv-tokens", options.kv_tokens_per_instance,
                  "KV tokens of each instance (default: what fits beside the weights)")
      ->check(in_range<int64_t>(1, kTokensMax))
      ->type_name("TOKENS")
      ->group(group);
  command.add_option("--kv-cache-dtype", options.kv_cache_dtype, "bf16 or fp8")
      ->check(CLI::IsMember({"bf16", "fp8"}).description(""))
      ->capture_default_str()
      ->group(group);
}

void add_load_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Load";
  add_length_flags(
      command, group,
      {.workload = options.workload,
       .workload_help =
           "Lengths, SHARE PROMPT -> OUTPUT ; ..., or issue(1), or adversarial:KIND; see "
           "docs/simulate.md",
       .trace_file = options.trace_file,
       .rotate_trace = options.rotate_trace});
  add_arrival_flags(command, group,
                    {.arrivals = options.arrivals, .arrivals_cv = options.arrivals_cv});
}

void add_run_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Runs";
  command.add_option("--rate", options.rates, "Requests per second, one run for each")
      ->delimiter(',')
      ->check(in_range(1e-6, 1e6))
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  command.add_option("--duration", options.duration_s, "Time of arrivals")
      ->check(in_range(1.0, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--min-requests", options.num_requests_min,
                  "Arrivals go on for longer where fewer would be measured")
      ->check(in_range<int64_t>(0, 1'000'000'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  add_run_flags(command, group, {.warmup_s = options.warmup_s, .seeds = options.seeds});
  command
      .add_option("--drain", options.drain_s,
                  "Time after the last arrival; what has not finished then is a miss")
      ->check(in_range(0.0, kSecondsMax))
      ->type_name("SECONDS")
      ->capture_default_str()
      ->group(group);
  command
      .add_flag("--prefill-here", options.prefill_here,
                "Prompts are prefilled on these instances (default: their KV arrives with them)")
      ->group(group);
  command
      .add_option("--slo", options.slo,
                  "Objectives, each kept by 99 % of requests: tpot=50ms,queue=10s,percentile=99")
      ->type_name("LIST")
      ->capture_default_str()
      ->group("Report");
}

void add_simulated_run_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Runs";
  command
      .add_option("--clip-prompts", options.clip_share,
                  "Cut prompts to this share of one instance's KV memory (default: not cut)")
      ->check(in_range(0.01, 1.0))
      ->type_name("SHARE")
      ->group(group);
  command
      .add_flag("--check-steps", options.checks_steps,
                "Check in every step what the scheduler promises; slow")
      ->group(group);
}

void add_policy_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Policies and scheduler";
  command
      .add_option("--policies", options.policies,
                  "bound/ROUTER, uniform_cp/DEGREE, threshold_cp/DEGREE, dcp")
      ->delimiter(',')
      ->type_name("LIST")
      ->capture_default_str()
      ->group(group);
  add_split_flags(command, group,
                  {.cp_threshold_tokens = options.cp_threshold_tokens,
                   .min_tokens_per_shard = options.min_tokens_per_shard,
                   .max_cp_degree = options.max_cp_degree});
  command.add_option("--block-size", options.block_size, "Tokens in one KV block")
      ->check(in_range(1, 1 << 16))
      ->type_name("TOKENS")
      ->capture_default_str()
      ->group(group);
  command.add_option("--max-num-seqs", options.max_num_seqs, "Running requests of one instance")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-num-batched-tokens", options.max_num_batched_tokens,
                  "Rows of one instance in one step")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--admission-lookahead", options.admission_lookahead,
                  "Waiting requests looked at behind blocked ones")
      ->check(in_range(0, 1 << 20))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--max-overtakes", options.max_overtakes,
                  "How often later requests may pass one that has no room")
      ->check(in_range(0, 1 << 30))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

void add_search_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Search";
  command
      .add_flag("--find-rate", options.find_rate,
                "Find the largest rate that keeps the objectives, for each policy and seed")
      ->group(group);
  command
      .add_flag("--plan", options.plan,
                "Find the fewest GPUs that sustain the rate, for each policy, instead")
      ->group(group);
  command
      .add_option(
          "--gpus", options.gpus,
          "Numbers of GPUs to choose from (--plan; default: 1, 2, 4 and whole domains to 64)")
      ->delimiter(',')
      ->check(in_range(1, kInstancesMax))
      ->type_name("LIST")
      ->group(group);
  command
      .add_option("--rate-precision", options.rate_precision,
                  "Step between the rates that are tried")
      ->check(in_range(0.001, 0.5))
      ->type_name("SHARE")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--rate-guess", options.rate_guess,
                  "Rate to start from (default: estimated from the costs)")
      ->check(in_range(1e-3, 1e6))
      ->type_name("RATE")
      ->group(group);
  command
      .add_option("--jobs", options.num_jobs, "Runs at the same time; results do not depend on it")
      ->check(in_range(1, 1024))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

void add_report_group(CLI::App& command, SimulateOptions& options) {
  const char* group = "Report";
  command
      .add_flag("--stop-at-miss", options.stop_at_miss,
                "End a run as soon as the objectives cannot be met any more")
      ->group(group);
  command.add_option("--json", options.json_file, "Write the results there")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--html", options.html_file,
                  "Write a page with charts there; it needs no other file and no network")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--png", options.png_file,
                  "Write a picture of the charts there (needs rsvg-convert of librsvg2-bin)")
      ->type_name("FILE")
      ->group(group);
  command
      .add_option("--sample-every", options.sample_every_s,
                  "Keep the state of all instances so often in simulated time (default: with "
                  "--html or --png, up to 500 times)")
      ->check(in_range(0.001, kSecondsMax))
      ->type_name("SECONDS")
      ->group(group);
  command
      .add_option("--timeline-at", options.timeline_at_s,
                  "Keep steps in full from that simulated time on (default: with --html, from "
                  "half of the duration)")
      ->check(in_range(0.0, kSecondsMax))
      ->type_name("SECONDS")
      ->group(group);
  command.add_option("--timeline-steps", options.num_timeline_steps, "How many")
      ->check(in_range(1, 100'000))
      ->type_name("N")
      ->capture_default_str()
      ->group(group);
}

}  // namespace

Result<sim::Objectives> parse_slo(const std::string& text) {
  sim::Objectives objectives;
  NANOCP_RETURN_IF_ERROR(
      parse_slo_list(text, {{"tpot", &objectives.tpot_us}, {"queue", &objectives.queue_us}},
                     objectives.percentile));
  return objectives;
}

void add_load_options(CLI::App& command, SimulateOptions& options) {
  add_load_group(command, options);
  add_run_group(command, options);
}

sim::RecorderOptions recorder_options(const SimulateOptions& options) {
  sim::RecorderOptions record{.sample_every_s = options.sample_every_s};
  if (options.wants_page() && options.sample_every_s <= 0.0) {
    record.num_samples_max = std::clamp(kPageStates / options.num_instances, 100, kPageSamplesMax);
  }
  if (!options.html_file.empty() || options.timeline_at_s >= 0.0) {
    record.timeline_from_s =
        options.timeline_at_s >= 0.0 ? options.timeline_at_s : options.duration_s / 2.0;
    record.num_timeline_steps = options.num_timeline_steps;
  }
  return record;
}

void add_simulate_options(CLI::App& command, SimulateOptions& options) {
  add_cluster_group(command, options);
  add_load_options(command, options);
  add_simulated_run_group(command, options);
  add_policy_group(command, options);
  add_search_group(command, options);
  add_report_group(command, options);
}

}  // namespace nanocp::apps
