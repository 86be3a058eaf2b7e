#include "apps/simulate_cluster.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "apps/model_lookup.h"
#include "apps/policy_list.h"
#include "apps/profile_file.h"
#include "apps/trace_file.h"
#include "base/clock.h"
#include "model/config_parser.h"
#include "model/memory_estimate.h"
#include "sim/rate_search.h"
#include "sim/simulation.h"

namespace nanocp::apps {
namespace {

Result<int64_t> kv_tokens_of(const SimulateOptions& options, const model::ModelSpec& spec,
                             const sim::HardwareProfile& hardware) {
  if (options.kv_tokens_per_instance > 0) return options.kv_tokens_per_instance;
  constexpr double kGib = 1024.0 * 1024.0 * 1024.0;
  const model::InstanceMemory memory = {
      .size_bytes = std::llround(hardware.memory_gib.value * kGib),
      .usable_fraction = options.memory_utilization,
      .block_tokens = options.block_size};
  int64_t tokens = model::kv_tokens_per_instance(spec, options.num_instances, memory);
  if (options.kv_cache_dtype == "fp8") tokens *= 2;
  if (tokens >= options.block_size) return tokens;
  const int64_t needed = model::count_weight_bytes(spec).per_instance(options.num_instances);
  return resource_exhausted("the weights of an instance take " + std::to_string(needed >> 20) +
                            " MiB, which " + std::to_string(options.num_instances) +
                            " instances of " + std::to_string(memory.size_bytes >> 20) +
                            " MiB do not hold beside a KV block: use more instances");
}

sim::SimulationOptions simulation_options(const SimulateOptions& options, const Cluster& cluster,
                                          uint64_t seed) {
  sim::SimulationOptions result;
  result.scheduler.num_blocks.assign(static_cast<size_t>(options.num_instances),
                                     cluster.kv_tokens / options.block_size);
  result.scheduler.block_size = options.block_size;
  result.scheduler.max_batched_tokens = options.max_num_batched_tokens;
  result.scheduler.max_num_seqs = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  result.scheduler.admission_lookahead = options.admission_lookahead;
  result.scheduler.max_overtakes = options.max_overtakes;
  result.scheduler.num_instances_per_domain = cluster.costs.model.shape.num_instances_per_domain;
  result.cost = cluster.costs.model;
  result.objectives = options.objectives;
  result.seed = seed;
  result.prefill_elsewhere = !options.prefill_here;
  result.warmup_s = options.warmup_s;
  result.drain_s = options.drain_s;
  result.stop_at_miss = options.stop_at_miss;
  result.record = recorder_options(options);
  // Debug builds check by themselves, but for searches, which take too many steps.
  const bool is_search = options.find_rate || options.plan;
  result.checks_steps = options.checks_steps || (result.checks_steps && !is_search);
  return result;
}

}  // namespace

Result<Cluster> make_cluster(const SimulateOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(const auto path, find_model_config(options.model));
  NANOCP_ASSIGN_OR_RETURN(const model::ModelSpec spec, model::read_config(path));
  NANOCP_ASSIGN_OR_RETURN(sim::HardwareProfile hardware, read_hardware_profile(options.hardware));
  if (!options.constants_file.empty()) {
    NANOCP_RETURN_IF_ERROR(add_measured_constants(options.constants_file, hardware));
  }
  if (options.num_per_domain > 0) hardware.num_instances_per_domain = options.num_per_domain;
  Cluster cluster;
  cluster.model = path.stem() == "config" ? path.parent_path().filename() : path.stem();
  if (!hardware.measured_model.empty() && hardware.measured_model != cluster.model) {
    std::fprintf(stderr, "note: the profile's constants are of %s, those of %s are derived\n",
                 hardware.measured_model.c_str(), cluster.model.c_str());
  }
  cluster.max_position = spec.max_position;
  const double kv_bytes = options.kv_cache_dtype == "fp8" ? 1.0 : 2.0;
  cluster.costs = sim::derive_costs(model_shape(spec, cluster.model, kv_bytes), hardware,
                                    options.num_instances);
  NANOCP_ASSIGN_OR_RETURN(cluster.kv_tokens, kv_tokens_of(options, spec, hardware));
  if (!options.trace_file.empty()) {
    NANOCP_ASSIGN_OR_RETURN(cluster.trace, read_trace(options.trace_file));
    return cluster;
  }
  if (options.arrivals == "trace") {
    return invalid_argument("--arrivals trace needs --trace FILE");
  }
  constexpr std::string_view kAdversarial = "adversarial:";
  if (options.workload.starts_with(kAdversarial)) {
    NANOCP_ASSIGN_OR_RETURN(cluster.adversary,
                            sim::parse_adversary(options.workload.substr(kAdversarial.size())));
    return cluster;
  }
  NANOCP_ASSIGN_OR_RETURN(sim::LengthMixture mixture, sim::LengthMixture::parse(options.workload));
  cluster.mixture = std::make_unique<sim::LengthMixture>(std::move(mixture));
  return cluster;
}

double arrivals_duration_s(const SimulateOptions& options, double rate) {
  const auto num_measured = static_cast<double>(options.num_requests_min);
  return std::max(options.duration_s, options.warmup_s + num_measured / rate);
}

namespace {

std::vector<sim::Arrival> make_adversarial_arrivals(const SimulateOptions& options,
                                                    const Cluster& cluster, double rate,
                                                    uint64_t seed) {
  const double duration_s = arrivals_duration_s(options, rate);
  const std::vector<int64_t> kv_tokens(static_cast<size_t>(options.num_instances),
                                       cluster.kv_tokens);
  return sim::draw_adversarial_load(*cluster.adversary,
                                    {.kv_tokens = kv_tokens,
                                     .num_requests = std::llround(rate * duration_s),
                                     .duration_us = std::llround(duration_s * 1e6)},
                                    Random(seed));
}

}  // namespace

std::vector<sim::Arrival> draw_arrivals(const SimulateOptions& options, const LoadLengths& lengths,
                                        double rate, uint64_t seed) {
  const sim::LoadOptions load = {.process = sim::arrival_process(options.arrivals),
                                 .cv = options.arrivals_cv,
                                 .rate_per_s = rate,
                                 .duration_s = arrivals_duration_s(options, rate),
                                 .is_rotated = options.rotate_trace};
  return lengths.mixture != nullptr ? sim::draw_load(*lengths.mixture, load, Random(seed))
                                    : sim::replay_load(lengths.trace, load, Random(seed));
}

std::vector<sim::Arrival> make_arrivals(const SimulateOptions& options, const Cluster& cluster,
                                        double rate, uint64_t seed) {
  if (cluster.adversary) return make_adversarial_arrivals(options, cluster, rate, seed);
  std::vector<sim::Arrival> arrivals =
      draw_arrivals(options, {cluster.mixture.get(), cluster.trace}, rate, seed);
  if (options.clip_share > 0.0) {
    const auto most = std::max<int64_t>(
        1, std::llround(options.clip_share * static_cast<double>(cluster.kv_tokens)));
    for (sim::Arrival& arrival : arrivals) {
      arrival.num_prompt_tokens = std::min(arrival.num_prompt_tokens, most);
    }
  }
  return arrivals;
}

double estimate_rate(const SimulateOptions& options, const Cluster& cluster) {
  constexpr double kShareOfEstimate = 0.8;
  constexpr double kSampleRate = 1000.0;
  SimulateOptions sample = options;
  sample.duration_s = 20.0;
  sample.num_requests_min = 0;
  const auto arrivals = make_arrivals(sample, cluster, kSampleRate, options.seeds.front());
  double num_prompt = 0.0;
  double num_output = 0.0;
  for (const sim::Arrival& arrival : arrivals) {
    num_prompt += static_cast<double>(arrival.num_prompt_tokens);
    num_output += static_cast<double>(arrival.num_output_tokens);
  }
  const auto count = static_cast<double>(std::max<size_t>(1, arrivals.size()));
  return kShareOfEstimate * sim::estimate_rate({.cost = cluster.costs.model,
                                                .kv_tokens_per_instance = cluster.kv_tokens,
                                                .max_num_seqs = options.max_num_seqs,
                                                .mean_prompt_tokens = num_prompt / count,
                                                .mean_output_tokens = num_output / count,
                                                .objectives = options.objectives});
}

scheduler::PolicyOptions policy_options(const SimulateOptions& options, const Cluster& cluster) {
  const scheduler::CostModel& cost = cluster.costs.model;
  const int max_degree = options.max_cp_degree > 0 ? options.max_cp_degree : options.num_instances;
  return {.num_instances = options.num_instances,
          .degree = max_degree,
          .threshold_tokens = options.cp_threshold_tokens,
          .min_tokens_per_shard = options.min_tokens_per_shard,
          .max_degree = options.max_cp_degree,
          .costs = cost.placement_costs(options.objectives.tpot_us)};
}

Result<SimulatedRun> run_one(const SimulateOptions& options, const Cluster& cluster,
                             const SimulatedRun& named,
                             const std::function<bool(double done)>& progress) {
  SimulatedRun run = named;
  NANOCP_ASSIGN_OR_RETURN(auto policy,
                          make_named_policy(run.policy, policy_options(options, cluster)));
  sim::SimulationOptions simulation = simulation_options(options, cluster, run.seed);
  simulation.progress = progress;
  const auto arrivals = make_arrivals(options, cluster, run.rate_per_s, run.seed);
  const SteadyClock clock;
  const int64_t start_us = clock.now_us();
  NANOCP_ASSIGN_OR_RETURN(run.result, sim::simulate(simulation, std::move(policy), arrivals));
  run.wall_s = static_cast<double>(clock.now_us() - start_us) / 1e6;
  return run;
}

}  // namespace nanocp::apps
