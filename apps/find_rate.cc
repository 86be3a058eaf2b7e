#include "apps/find_rate.h"

#include <cstdio>
#include <map>
#include <mutex>
#include <optional>
#include <utility>

#include "apps/parallel_tasks.h"
#include "apps/progress_bar.h"
#include "apps/simulate_report.h"
#include "sim/rate_search.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr double kEstimateError = 0.3;
constexpr double kGuessError = 0.1;
constexpr double kSeedError = 0.03;  // from one seed to the next

// One search: its trials, several at a time where there are threads for it.
class Search {
 public:
  Search(const SimulateOptions& options, const Cluster& cluster, size_t num_threads,
         sim::RateSearch search)
      : options_(options), cluster_(cluster), num_threads_(num_threads), search_(search) {}

  Result<FoundRate> run(const std::string& policy, uint64_t seed);

 private:
  Status try_upcoming();

  const SimulateOptions& options_;
  const Cluster& cluster_;
  const size_t num_threads_;
  sim::RateSearch search_;
  FoundRate found_;
  std::map<int32_t, SimulatedRun> runs_;  // by place; not asked for yet
};

Status Search::try_upcoming() {
  std::vector<int32_t> places;
  for (const int32_t place : search_.upcoming(num_threads_)) {
    if (!runs_.contains(place)) places.push_back(place);
  }
  std::vector<std::optional<Result<SimulatedRun>>> results(places.size());
  run_tasks(places.size(), num_threads_, [&](size_t i) {
    SimulatedRun named;
    named.policy = found_.policy;
    named.seed = found_.seed;
    named.rate_per_s = search_.rate_per_s(places[i]);
    results[i] = run_one(options_, cluster_, named, {});
  });
  for (size_t i = 0; i < places.size(); ++i) {
    NANOCP_ASSIGN_OR_RETURN(SimulatedRun run, std::move(*results[i]));
    run.result.records = {};  // large, and their metrics are there
    runs_.emplace(places[i], std::move(run));
  }
  return ok_status();
}

Result<FoundRate> Search::run(const std::string& policy, uint64_t seed) {
  found_.policy = policy;
  found_.seed = seed;
  while (const std::optional<int32_t> place = search_.next()) {
    if (!runs_.contains(*place)) NANOCP_RETURN_IF_ERROR(try_upcoming());
    SimulatedRun run = std::move(runs_.extract(*place).mapped());
    const std::string missed = run.result.missed;
    found_.trials.push_back({run.rate_per_s, missed, run.wall_s});
    search_.record(*place, missed.empty());
    if (missed.empty()) {
      found_.rate_per_s = run.rate_per_s;
    } else {
      found_.missed_rate_per_s = run.rate_per_s;
      found_.limit = missed;
    }
    if (missed.empty() || found_.rate_per_s == 0.0) found_.at_rate = std::move(run);
    // At another rate the same requests would be refused.
    if (missed == sim::kRefusedName) search_.give_up();
  }
  return std::move(found_);
}

json found_json(const FoundRate& found) {
  json trials = json::array();
  for (const RateTrial& trial : found.trials) {
    trials.push_back(
        {{"rate_per_s", trial.rate_per_s}, {"missed", trial.missed}, {"wall_s", trial.wall_s}});
  }
  return {{"policy", found.policy},
          {"seed", found.seed},
          {"rate_per_s", found.rate_per_s},
          {"missed_rate_per_s", found.missed_rate_per_s},
          {"limit", found.limit},
          {"wall_s", found.wall_s()},
          {"at_rate", simulated_run_json(found.at_rate)},
          {"trials", std::move(trials)}};
}

}  // namespace

double FoundRate::wall_s() const {
  double sum_s = 0.0;
  for (const RateTrial& trial : trials) sum_s += trial.wall_s;
  return sum_s;
}

Result<std::vector<FoundRate>> find_rates(const SimulateOptions& options, const Cluster& cluster,
                                          const std::function<void(const FoundRate&)>& found) {
  SimulateOptions searched = options;
  searched.stop_at_miss = true;
  const bool is_guessed = options.rate_guess > 0.0;
  const double guess = is_guessed ? options.rate_guess : estimate_rate(searched, cluster);
  const size_t num_seeds = options.seeds.size();
  const size_t num_policies = options.policies.size();
  const auto num_jobs = static_cast<size_t>(options.num_jobs);
  const size_t num_each = std::max<size_t>(1, num_jobs / num_policies);
  std::vector<FoundRate> rates(num_policies * num_seeds);
  std::mutex mutex;
  std::optional<Error> error;  // guarded by mutex
  size_t num_done = 0;         // guarded by mutex
  ProgressBar bar("searching rates", ProgressBar::Unit::kNone);
  run_tasks(num_policies, num_jobs, [&](size_t p) {
    sim::RateSearch search(guess, options.rate_precision,
                           is_guessed ? kGuessError : kEstimateError);
    for (size_t s = 0; s < num_seeds; ++s) {
      auto one =
          Search(searched, cluster, num_each, search).run(options.policies[p], options.seeds[s]);
      const std::lock_guard lock(mutex);
      if (!one.ok()) error = one.error();
      if (error) return;
      if (one->rate_per_s > 0.0) {
        search = sim::RateSearch(one->rate_per_s, options.rate_precision, kSeedError);
      }
      bar.finish();
      found(*one);
      bar.update(static_cast<int64_t>(++num_done), static_cast<int64_t>(rates.size()));
      rates[p * num_seeds + s] = std::move(*one);
    }
  });
  if (error) return *error;
  return rates;
}

void print_rate_header() {
  std::printf("%-22s %6s %9s | %8s %8s | %9s | %6s | %6s %6s | %s\n", "policy", "seed", "max req/s",
              "TPOT ms", "P99", "queue P99", "strag.", "trials", "time", "limited by");
}

void print_rate(const FoundRate& found) {
  const sim::SimulationResult& result = found.at_rate.result;
  std::printf("%-22s %6llu %9.4g | %8.2f %8.2f | %7.2f s | %6.2f | %6zu %4.0f s | %s\n",
              found.policy.c_str(), static_cast<unsigned long long>(found.seed), found.rate_per_s,
              result.metrics.all.tpot_us.mean / 1e3, result.metrics.all.tpot_us.p99 / 1e3,
              result.metrics.all.queue_us.p99 / 1e6, result.straggler_ratio, found.trials.size(),
              found.wall_s(), found.limit.c_str());
  std::fflush(stdout);
}

Status write_rates(const SimulateOptions& options, const Cluster& cluster,
                   const std::vector<FoundRate>& rates) {
  json document = simulation_json(options, cluster);
  document["rate_precision"] = options.rate_precision;
  json list = json::array();
  for (const FoundRate& found : rates) list.push_back(found_json(found));
  document["rates"] = std::move(list);
  return write_simulation(options, document);
}

}  // namespace nanocp::apps
