#include "sim/simulation.h"

#include <algorithm>
#include <array>
#include <functional>
#include <queue>
#include <string>
#include <utility>

#include "base/clock.h"
#include "engine/engine.h"
#include "sim/oracle_policy.h"
#include "sim/plan_hash.h"
#include "sim/sim_runner.h"
#include "sim/step_checker.h"

namespace nanocp::sim {
namespace {

constexpr double kUsPerSecond = 1e6;
constexpr int64_t kCheckEveryUs = 1'000'000;
constexpr size_t kRefusalsMax = 8;  // of which the reason is kept

class Simulation {
 public:
  Simulation(const SimulationOptions& options, std::unique_ptr<scheduler::Policy> policy,
             const std::vector<Arrival>& arrivals)
      : options_(options),
        arrivals_(arrivals),
        runner_(options.cost, options.scheduler.block_size, policy->name() == OraclePolicy::kName,
                clock_),
        engine_({.scheduler = options.scheduler, .eos_token_ids = {}}, std::move(policy), runner_,
                clock_, Random(options.seed)),
        recorder_(options.record, options.cost),
        checker_(engine_),
        ahead_random_(options.seed) {
    runner_.on_launch = [this](const scheduler::StepPlan& plan) { observe(plan); };
    runner_.needs_tables = options.checks_steps;
    // Now and then a step has to wait for the tokens of the one before, as with sampling on the
    // host.
    if (options.plans_ahead) {
      runner_.allows_ahead = [this] { return ahead_random_.below(8) != 0; };
    }
    result_.records.reserve(arrivals.size());
    for (const Arrival& arrival : arrivals) {
      if (!is_measured(arrival)) continue;
      ++num_measured_;
      ++num_in_class_[static_cast<size_t>(length_class(arrival.num_prompt_tokens))];
    }
  }

  Result<SimulationResult> run();

 private:
  bool is_measured(const Arrival& arrival) const {
    return static_cast<double>(arrival.time_us) >= options_.warmup_s * kUsPerSecond;
  }
  void admit_arrivals();
  void add(const Arrival& arrival);
  void cancel_given_up();
  void observe(const scheduler::StepPlan& plan);
  Status step();
  void commit(const engine::TokenEvent& event, int64_t step_start_us);
  void count_step(int64_t start_us);
  void count_tpot_miss(const RequestRecord& record);
  void check_misses();
  std::string certain_miss();
  bool is_over() const;
  SimulationResult finish();

  const SimulationOptions& options_;
  const std::vector<Arrival>& arrivals_;
  ManualClock clock_;
  SimRunner runner_;
  engine::Engine engine_;
  Recorder recorder_;
  StepChecker checker_;
  PlanHash plan_hash_;
  Status plan_status_ = ok_status();  // of the first plan that is wrong
  Random ahead_random_;
  SimulationResult result_;
  std::vector<size_t> record_of_;  // [sequence id - 1]; ids count from 1
  size_t num_arrived_ = 0;
  // (time, sequence) of clients that will give up, the next one on top.
  using GivingUp = std::pair<int64_t, SequenceId>;
  std::priority_queue<GivingUp, std::vector<GivingUp>, std::greater<>> giving_up_;
  std::vector<size_t> unstarted_;  // records, those that have started are dropped now and then
  // Of measured requests: how many there are, and misses that are certain by now.
  int64_t num_measured_ = 0;
  std::array<int64_t, kNumClasses> num_in_class_ = {};
  int64_t num_queue_misses_ = 0;
  std::array<int64_t, kNumClasses> num_tpot_misses_ = {};  // refused requests included
  std::array<int64_t, kNumClasses> num_refused_ = {};
  int64_t next_check_us_ = 0;
  double sum_step_us_ = 0.0;
  double sum_rows_ = 0.0;
  double sum_straggler_ = 0.0;
  double sum_local_us_ = 0.0;
  double sum_exchange_us_ = 0.0;
  double sum_experts_us_ = 0.0;
};

Result<SimulationResult> Simulation::run() {
  while (!is_over()) {
    if (!engine_.has_work()) {
      if (num_arrived_ == arrivals_.size()) break;
      const int64_t gap_us = arrivals_[num_arrived_].time_us - clock_.now_us();
      if (gap_us > 0) clock_.advance_us(gap_us);
    }
    admit_arrivals();
    cancel_given_up();
    NANOCP_RETURN_IF_ERROR(step());
    if (clock_.now_us() >= next_check_us_) check_misses();
  }
  if (options_.checks_steps && !engine_.has_work()) {
    NANOCP_RETURN_IF_ERROR(checker_.check_end());
  }
  return finish();
}

bool Simulation::is_over() const {
  if (result_.is_stopped) return true;
  const int64_t last_us = arrivals_.empty() ? 0 : arrivals_.back().time_us;
  return static_cast<double>(clock_.now_us() - last_us) > options_.drain_s * kUsPerSecond;
}

void Simulation::admit_arrivals() {
  while (num_arrived_ < arrivals_.size() && arrivals_[num_arrived_].time_us <= clock_.now_us()) {
    add(arrivals_[num_arrived_++]);
  }
}

void Simulation::add(const Arrival& arrival) {
  RequestRecord record{.arrival = arrival};
  record.is_measured = is_measured(arrival);
  request::Request request;
  request.prompt.assign(static_cast<size_t>(arrival.num_prompt_tokens), 0);
  request.max_tokens = static_cast<int32_t>(arrival.num_output_tokens);
  request.ignore_eos = true;
  request.priority = arrival.priority;
  request.synthetic_kv = options_.prefill_elsewhere;
  const Result<SequenceId> id = engine_.add_request(std::move(request));
  record.is_refused = !id.ok();
  if (record.is_refused) {
    count_tpot_miss(record);
    if (result_.refusals.size() < kRefusalsMax) {
      result_.refusals.push_back({result_.records.size(), id.error().message});
    }
  } else {
    record_of_.push_back(result_.records.size());
    unstarted_.push_back(result_.records.size());
    if (options_.checks_steps) checker_.add(*id);
    if (arrival.cancel_after_us >= 0) {
      giving_up_.emplace(arrival.time_us + arrival.cancel_after_us, *id);
    }
  }
  result_.records.push_back(record);
}

void Simulation::cancel_given_up() {
  while (!giving_up_.empty() && giving_up_.top().first <= clock_.now_us()) {
    const SequenceId id = giving_up_.top().second;
    giving_up_.pop();
    if (!engine_.cancel(id)) continue;  // it was quicker
    if (options_.checks_steps) checker_.cancel(id);
    result_.records[record_of_[id - 1]].is_cancelled = true;
  }
}

void Simulation::observe(const scheduler::StepPlan& plan) {
  plan_hash_.add(plan);
  if (options_.checks_steps && plan_status_.ok()) plan_status_ = checker_.check_plan(plan);
}

Status Simulation::step() {
  const uint64_t num_steps = engine_.num_steps();
  const int64_t start_us = clock_.now_us();
  NANOCP_ASSIGN_OR_RETURN(const std::vector<engine::TokenEvent> events, engine_.step());
  if (options_.checks_steps) {
    NANOCP_RETURN_IF_ERROR(plan_status_);
    NANOCP_RETURN_IF_ERROR(checker_.check_step(events));
  }
  if (engine_.num_steps() == num_steps) {
    if (!engine_.has_work()) return ok_status();
    return Error{ErrorCode::kInternal, "the scheduler has work but planned no row at " +
                                           std::to_string(start_us) + " us"};
  }
  for (const engine::TokenEvent& event : events) commit(event, start_us);
  count_step(start_us);
  return ok_status();
}

void Simulation::commit(const engine::TokenEvent& event, int64_t step_start_us) {
  RequestRecord& record = result_.records[record_of_[event.sequence - 1]];
  if (record.start_us < 0) {
    record.start_us = step_start_us;
    if (record.is_measured && record.queue_us() > options_.objectives.queue_us) ++num_queue_misses_;
  }
  ++record.num_tokens;
  ++result_.num_tokens;
  if (!event.summary) return;
  record.finish_us = clock_.now_us();
  if (record.tpot_us() > options_.objectives.tpot_us) count_tpot_miss(record);
  record.degree = static_cast<int32_t>(event.summary->kv_tokens.size());
  record.num_preemptions = event.summary->num_preemptions;
  plan_hash_.add(event.sequence, *event.summary);
}

void Simulation::count_tpot_miss(const RequestRecord& record) {
  if (!record.is_measured) return;
  const auto c = static_cast<size_t>(length_class(record.arrival.num_prompt_tokens));
  ++num_tpot_misses_[c];
  if (record.is_refused) ++num_refused_[c];
}

void Simulation::count_step(int64_t start_us) {
  const scheduler::StepCost& cost = runner_.last_cost();
  sum_step_us_ += cost.step_us;
  for (const scheduler::InstanceWork& work : runner_.last_work()) sum_rows_ += work.num_rows;
  if (cost.mean_local_us > 0.0) sum_straggler_ += cost.local_us / cost.mean_local_us;
  sum_local_us_ += cost.local_us;
  sum_exchange_us_ += cost.exchange_us;
  sum_experts_us_ += cost.experts_us;
  recorder_.add({.step = engine_.num_steps() - 1,
                 .start_us = start_us,
                 .end_us = clock_.now_us(),
                 .cost = cost,
                 .work = runner_.last_work(),
                 .loads = engine_.loads(),
                 .num_waiting = static_cast<int64_t>(engine_.scheduler().num_waiting())});
}

// Once a virtual second: too many misses already, or somebody wants to stop.
void Simulation::check_misses() {
  next_check_us_ = clock_.now_us() + kCheckEveryUs;
  const double done = static_cast<double>(num_arrived_) /
                      static_cast<double>(std::max<size_t>(1, arrivals_.size()));
  if (options_.progress && !options_.progress(done)) result_.is_stopped = true;
  if (!options_.stop_at_miss || result_.is_stopped) return;
  result_.missed = certain_miss();
  result_.is_stopped = !result_.missed.empty();
}

// The objective that cannot be met any more, whatever comes; empty: none.
std::string Simulation::certain_miss() {
  const Objectives& objectives = options_.objectives;
  for (size_t c = 0; c < num_refused_.size(); ++c) {
    const int64_t num_allowed = objectives.num_misses_allowed(num_in_class_[c]);
    if (num_refused_[c] > num_allowed) return std::string(kRefusedName);
    if (num_tpot_misses_[c] > num_allowed) return tpot_objective_name(static_cast<int>(c));
  }
  std::erase_if(unstarted_, [this](size_t i) { return result_.records[i].start_us >= 0; });
  int64_t num_queue_misses = num_queue_misses_;
  for (const size_t i : unstarted_) {
    const RequestRecord& record = result_.records[i];
    const auto waited_us = static_cast<double>(clock_.now_us() - record.arrival.time_us);
    if (record.is_measured && waited_us > objectives.queue_us) ++num_queue_misses;
  }
  const bool is_late = num_queue_misses > objectives.num_misses_allowed(num_measured_);
  return is_late ? std::string(kQueueName) : std::string();
}

SimulationResult Simulation::finish() {
  // Those that never arrived because the simulation was stopped count as unfinished.
  for (; num_arrived_ < arrivals_.size(); ++num_arrived_) {
    RequestRecord record{.arrival = arrivals_[num_arrived_]};
    record.is_measured = is_measured(record.arrival);
    result_.records.push_back(record);
  }
  result_.trace_hash = plan_hash_.value();
  result_.metrics = compute_metrics(result_.records, options_.objectives);
  result_.recording = recorder_.finish();
  if (!result_.is_stopped) result_.missed = result_.metrics.missed(options_.objectives);
  result_.num_steps = engine_.num_steps();
  result_.end_us = clock_.now_us();
  const auto num_steps = static_cast<double>(std::max<uint64_t>(1, result_.num_steps));
  result_.mean_step_us = sum_step_us_ / num_steps;
  result_.mean_rows = sum_rows_ / num_steps;
  result_.straggler_ratio = sum_straggler_ / num_steps;
  if (sum_step_us_ > 0.0) {
    result_.local_share = sum_local_us_ / sum_step_us_;
    result_.exchange_share = sum_exchange_us_ / sum_step_us_;
    result_.experts_share = sum_experts_us_ / sum_step_us_;
  }
  return std::move(result_);
}

}  // namespace

Result<SimulationResult> simulate(const SimulationOptions& options,
                                  std::unique_ptr<scheduler::Policy> policy,
                                  const std::vector<Arrival>& arrivals) {
  NANOCP_RETURN_IF_ERROR(scheduler::check_options(options.scheduler));
  if (options.cost.shape.num_instances != options.scheduler.num_instances()) {
    return invalid_argument(
        "the cost model is of " + std::to_string(options.cost.shape.num_instances) +
        " instances, the scheduler of " + std::to_string(options.scheduler.num_instances()));
  }
  const auto domain_of = [&](int32_t num_per_domain) {
    return scheduler::Domains::of(num_per_domain, options.scheduler.num_instances()).size;
  };
  if (domain_of(options.cost.shape.num_instances_per_domain) !=
      domain_of(options.scheduler.num_instances_per_domain)) {
    return invalid_argument("cost model and scheduler differ in instances per domain");
  }
  Simulation simulation(options, std::move(policy), arrivals);
  return simulation.run();
}

}  // namespace nanocp::sim
