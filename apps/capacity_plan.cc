#include "apps/capacity_plan.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <mutex>
#include <optional>
#include <utility>

#include "apps/find_rate.h"
#include "apps/grouped_number.h"
#include "apps/json_output.h"
#include "apps/parallel_tasks.h"
#include "apps/policy_list.h"
#include "apps/progress_bar.h"
#include "apps/request_metrics.h"
#include "apps/simulate_report.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr int kGpusMax = 64;  // of the default numbers

// A number of GPUs with what runs on it.
struct Size {
  SimulateOptions options;
  Cluster cluster;
};

// One, two, four, and then whole domains.
std::vector<int> default_gpus(int num_per_domain) {
  std::vector<int> gpus;
  for (int n = 1; n < num_per_domain; n *= 2) gpus.push_back(n);
  for (int n = num_per_domain; n <= kGpusMax; n += num_per_domain) gpus.push_back(n);
  return gpus;
}

Result<Size> make_size(const SimulateOptions& options, int num_gpus) {
  Size size{.options = options, .cluster = {}};
  size.options.num_instances = num_gpus;
  // Of few GPUs all may hold a request.
  size.options.max_cp_degree = std::min(options.max_cp_degree, num_gpus);
  size.options.stop_at_miss = true;
  NANOCP_ASSIGN_OR_RETURN(size.cluster, make_cluster(size.options));
  return size;
}

// Those that hold the weights, smallest first.
Result<std::vector<Size>> make_sizes(const SimulateOptions& options) {
  std::vector<int> gpus = options.gpus;
  if (gpus.empty()) {
    SimulateOptions most = options;
    most.num_instances = kGpusMax;
    NANOCP_ASSIGN_OR_RETURN(const Cluster cluster, make_cluster(most));
    gpus = default_gpus(cluster.costs.model.shape.num_instances_per_domain);
  }
  std::sort(gpus.begin(), gpus.end());
  std::vector<Size> sizes;
  std::optional<Error> too_small;
  for (const int num_gpus : gpus) {
    Result<Size> size = make_size(options, num_gpus);
    if (size.ok()) {
      sizes.push_back(std::move(*size));
    } else if (size.error().code == ErrorCode::kResourceExhausted) {
      too_small = size.error();
    } else {
      return size.error();
    }
  }
  if (sizes.empty()) return *too_small;
  return sizes;
}

// The search of one policy over sizes: what is known to miss is below what is known to do.
class NeedSearch {
 public:
  NeedSearch(const std::vector<Size>& sizes, std::string policy) : sizes_(sizes) {
    need_.policy = std::move(policy);
  }

  Result<PolicyNeed> run();

 private:
  Result<bool> try_size(size_t i);
  size_t guess(size_t first) const;
  Status find_longest(const Size& size);

  const std::vector<Size>& sizes_;
  PolicyNeed need_;
};

// Whether the policy sustains the rate with all seeds.
Result<bool> NeedSearch::try_size(size_t i) {
  const Size& size = sizes_[i];
  std::optional<SimulatedRun> worst;
  for (const uint64_t seed : size.options.seeds) {
    SimulatedRun named;
    named.policy = need_.policy;
    named.seed = seed;
    named.rate_per_s = size.options.rates.front();
    NANOCP_ASSIGN_OR_RETURN(SimulatedRun run, run_one(size.options, size.cluster, named, {}));
    run.result.records = {};
    if (!run.result.missed.empty()) {
      need_.num_gpus_missed = size.options.num_instances;
      need_.missed = run.result.missed;
      return false;
    }
    const auto p99_us = [](const SimulatedRun& r) { return r.result.metrics.all.tpot_us.p99; };
    if (!worst || p99_us(run) > p99_us(*worst)) worst = std::move(run);
  }
  need_.num_gpus = size.options.num_instances;
  need_.run = std::move(*worst);
  return true;
}

// The first size that may do.
size_t NeedSearch::guess(size_t first) const {
  for (size_t i = first; i + 1 < sizes_.size(); ++i) {
    const Size& size = sizes_[i];
    if (estimate_rate(size.options, size.cluster) >= size.options.rates.front()) return i;
  }
  return sizes_.size() - 1;
}

Result<PolicyNeed> NeedSearch::run() {
  // A degree that is larger than the number of instances is no policy there.
  size_t first = 0;
  const auto make = [&](size_t i) {
    return make_named_policy(need_.policy, policy_options(sizes_[i].options, sizes_[i].cluster));
  };
  while (first + 1 < sizes_.size() && !make(first).ok()) ++first;
  NANOCP_RETURN_IF_ERROR(make(first));

  size_t low = first;           // all below miss
  size_t high = sizes_.size();  // does, if it is a size
  size_t probe = guess(first);
  size_t stride = 1;
  while (low < high) {
    NANOCP_ASSIGN_OR_RETURN(const bool is_met, try_size(probe));
    (is_met ? high : low) = is_met ? probe : probe + 1;
    const bool is_bracketed = low > first && high < sizes_.size();
    if (low >= high) break;
    if (is_bracketed) {
      probe = (low + high) / 2;
    } else {
      probe = is_met ? high - std::min(stride, high - low) : std::min(low + stride, high) - 1;
      stride *= 2;
    }
  }
  if (high < sizes_.size()) NANOCP_RETURN_IF_ERROR(find_longest(sizes_[high]));
  return std::move(need_);
}

Status NeedSearch::find_longest(const Size& size) {
  NANOCP_ASSIGN_OR_RETURN(
      const auto policy,
      make_named_policy(need_.policy, policy_options(size.options, size.cluster)));
  const int64_t block_size = size.options.block_size;
  const std::vector<int64_t> capacities(static_cast<size_t>(size.options.num_instances),
                                        size.cluster.kv_tokens / block_size);
  constexpr int64_t kLong = std::numeric_limits<int32_t>::max();
  const scheduler::RequestShape shape = {.num_prompt_tokens = kLong,
                                         .num_tokens = kLong,
                                         .num_new_blocks = 0,
                                         .max_blocks = kLong / block_size,
                                         .placement = nullptr};
  need_.longest_kv_tokens = policy->max_request_blocks(capacities, shape) * block_size;
  need_.longest_tokens = std::min(need_.longest_kv_tokens, size.cluster.max_position);
  return ok_status();
}

void choose_best(CapacityPlan& plan) {
  const auto order = [&](int i) {
    const PolicyNeed& need = plan.needs[static_cast<size_t>(i)];
    return std::pair(need.num_gpus, need.run.result.metrics.all.tpot_us.p99);
  };
  for (int i = 0; i < std::ssize(plan.needs); ++i) {
    if (plan.needs[static_cast<size_t>(i)].num_gpus == 0) continue;
    if (plan.best < 0 || order(i) < order(plan.best)) plan.best = i;
  }
}

Status find_max_rate(const SimulateOptions& options, const std::vector<Size>& sizes,
                     CapacityPlan& plan) {
  const PolicyNeed& need = plan.needs[static_cast<size_t>(plan.best)];
  const auto size = std::find_if(sizes.begin(), sizes.end(), [&](const Size& one) {
    return one.options.num_instances == need.num_gpus;
  });
  SimulateOptions searched = size->options;
  searched.policies = {need.policy};
  if (searched.rate_guess == 0.0) searched.rate_guess = options.rates.front();
  NANOCP_ASSIGN_OR_RETURN(const auto rates,
                          find_rates(searched, size->cluster, [](const FoundRate&) {}));
  // The rate asked for is known to be sustained, though it need not be one that was searched.
  plan.max_rate_per_s = std::numeric_limits<double>::infinity();
  for (const FoundRate& found : rates) {
    plan.max_rate_per_s =
        std::min(plan.max_rate_per_s, std::max(found.rate_per_s, plan.rate_per_s));
  }
  return ok_status();
}

void print_need(const PolicyNeed& need) {
  const sim::ClassMetrics& all = need.run.result.metrics.all;
  if (need.num_gpus == 0) {
    std::printf("%-22s %5s | %8s %8s | %9s | %15s |", need.policy.c_str(), "none", "", "", "", "");
  } else {
    std::printf("%-22s %5d | %8.2f %8.2f | %7.2f s | %15s |", need.policy.c_str(), need.num_gpus,
                all.tpot_us.mean / 1e3, all.tpot_us.p99 / 1e3, all.queue_us.p99 / 1e6,
                grouped(need.longest_tokens).c_str());
  }
  if (need.num_gpus_missed > 0) {
    std::printf(" %d: %s", need.num_gpus_missed, need.missed.c_str());
  }
  std::printf("\n");
}

json need_json(const PolicyNeed& need) {
  json document = {{"policy", need.policy}, {"num_gpus", nullptr}};
  if (need.num_gpus_missed > 0) {
    document["num_gpus_missed"] = need.num_gpus_missed;
    document["missed"] = need.missed;
  }
  if (need.num_gpus == 0) return document;
  document["num_gpus"] = need.num_gpus;
  document["longest_request_tokens"] = need.longest_tokens;
  document["longest_request_kv_tokens"] = need.longest_kv_tokens;
  document["run"] = simulated_run_json(need.run);
  return document;
}

}  // namespace

Result<CapacityPlan> plan_capacity(const SimulateOptions& options) {
  NANOCP_ASSIGN_OR_RETURN(const std::vector<Size> sizes, make_sizes(options));
  CapacityPlan plan;
  plan.model = sizes.front().cluster.model;
  plan.rate_per_s = options.rates.front();
  for (const Size& size : sizes) plan.gpus.push_back(size.options.num_instances);
  plan.needs.resize(options.policies.size());
  std::mutex mutex;
  std::optional<Error> error;  // guarded by mutex
  int64_t num_done = 0;        // guarded by mutex
  ProgressBar bar("planning", ProgressBar::Unit::kNone);
  const auto num_jobs = static_cast<size_t>(options.num_jobs);
  run_tasks(plan.needs.size(), num_jobs, [&](size_t i) {
    Result<PolicyNeed> need = NeedSearch(sizes, options.policies[i]).run();
    const std::lock_guard lock(mutex);
    if (!need.ok()) {
      error = need.error();
      return;
    }
    plan.needs[i] = std::move(*need);
    bar.update(++num_done, std::ssize(plan.needs));
  });
  bar.finish();
  if (error) return *error;
  choose_best(plan);
  if (plan.best >= 0) NANOCP_RETURN_IF_ERROR(find_max_rate(options, sizes, plan));
  return plan;
}

void print_plan(const SimulateOptions& options, const CapacityPlan& plan) {
  std::printf("%s on %s, %g requests per second, %s\n", plan.model.c_str(),
              options.hardware.c_str(), plan.rate_per_s, options.slo.c_str());
  std::printf("%-22s %5s | %8s %8s | %9s | %15s | %s\n", "policy", "GPUs", "TPOT ms", "P99",
              "queue P99", "longest request", "fewer do not");
  for (const PolicyNeed& need : plan.needs) print_need(need);
  if (plan.best < 0) {
    std::printf("None of %d to %d GPUs sustains this rate; give larger numbers with --gpus\n",
                plan.gpus.front(), plan.gpus.back());
    return;
  }
  const PolicyNeed& best = plan.needs[static_cast<size_t>(plan.best)];
  std::printf("Plan: %d GPUs with %s. They sustain up to %.4g requests per second. ", best.num_gpus,
              best.policy.c_str(), plan.max_rate_per_s);
  std::printf("Requests of up to %s tokens fit", grouped(best.longest_tokens).c_str());
  if (best.longest_kv_tokens > best.longest_tokens) {
    std::printf(", which is what the model is made for; their KV memory would hold %s",
                grouped(best.longest_kv_tokens).c_str());
  }
  std::printf(".\n");
}

Status write_plan_json(const SimulateOptions& options, const CapacityPlan& plan) {
  json needs = json::array();
  for (const PolicyNeed& need : plan.needs) needs.push_back(need_json(need));
  json document = {{"plan", 1},
                   {"model", plan.model},
                   {"hardware", options.hardware},
                   {"workload", workload_name(options)},
                   {"rate_per_s", plan.rate_per_s},
                   {"slo", objectives_json(options.objectives)},
                   {"gpus", plan.gpus},
                   {"policies", std::move(needs)},
                   {"best", nullptr}};
  if (plan.best >= 0) {
    const PolicyNeed& best = plan.needs[static_cast<size_t>(plan.best)];
    document["best"] = {{"policy", best.policy},
                        {"num_gpus", best.num_gpus},
                        {"max_rate_per_s", plan.max_rate_per_s}};
  }
  return write_file(options.json_file, json_text(document));
}

}  // namespace nanocp::apps
