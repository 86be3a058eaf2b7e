// What one step costs on the host: the scheduler alone, then engine, scheduler and simulated runner
// together, and the scheduler with the tables of a device runner. All requests decode; a share of
// them is replaced in every step.
//
// Usage: scheduler_bench [--steps N] [--filter TEXT]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "engine/engine.h"
#include "scheduler/scheduler.h"
#include "sim/sim_runner.h"

namespace nanocp {
namespace {

using request::FinishReason;
using request::Sequence;

constexpr int32_t kBlockSize = 64;
constexpr int64_t kBlocksEach = 8192;
constexpr int32_t kPerDomain = 8;

struct Case {
  std::string policy;
  int32_t num_instances;
  int32_t num_each;   // requests of an instance, on average
  double joins;       // share of requests replaced in a step
  double long_share;  // of requests with 32 k tokens; the others have 512 to 1,536
};

std::string name_of(const Case& c) {
  char text[128];
  std::snprintf(text, sizeof(text), "%-22s %3d x %2d, %.1f %% joins", c.policy.c_str(),
                c.num_instances, c.num_each, 100.0 * c.joins);
  return text;
}

std::unique_ptr<scheduler::Policy> make_policy(const Case& c) {
  scheduler::PolicyOptions options{.num_instances = c.num_instances, .degree = 8};
  const size_t slash = c.policy.find('/');
  if (slash != std::string::npos && c.policy.starts_with("bound")) {
    options.router = c.policy.substr(slash + 1);
  }
  options.threshold_tokens = 16384;
  auto policy = scheduler::make_policy(c.policy.substr(0, slash), options);
  NANOCP_CHECK(policy.ok());
  return std::move(*policy);
}

scheduler::SchedulerOptions options_of(const Case& c) {
  scheduler::SchedulerOptions options;
  options.num_blocks.assign(static_cast<size_t>(c.num_instances), kBlocksEach);
  options.block_size = kBlockSize;
  options.max_num_seqs = 1024;
  options.num_instances_per_domain = kPerDomain;
  return options;
}

request::Request draw_request(const Case& c, Random& random) {
  request::Request request;
  const bool is_long = random.uniform() < c.long_share;
  request.prompt.assign(static_cast<size_t>(is_long ? 32768 : random.between(512, 1536)), 0);
  request.max_tokens = 4096;
  request.ignore_eos = true;
  request.synthetic_kv = true;
  return request;
}

// Processor time of this thread, so that other programs do not count.
class Timer {
 public:
  void start() { start_us_ = now_us(); }
  void stop() { total_us_ += now_us() - start_us_; }
  double us() const { return total_us_; }

 private:
  static double now_us() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e6 * static_cast<double>(now.tv_sec) + 1e-3 * static_cast<double>(now.tv_nsec);
  }
  double start_us_ = 0.0;
  double total_us_ = 0.0;
};

// Times what happens inside the engine's calls.
class TimedRunner final : public engine::ModelRunner {
 public:
  TimedRunner(const scheduler::CostModel& model, ManualClock& clock)
      : inner_(model, kBlockSize, /*is_ideal=*/false, clock) {}
  engine::StepTicket launch(const scheduler::StepPlan& plan) override {
    timer.start();
    const engine::StepTicket ticket = inner_.launch(plan);
    timer.stop();
    return ticket;
  }
  Result<engine::StepResult> wait(engine::StepTicket ticket) override {
    timer.start();
    auto result = inner_.wait(ticket);
    timer.stop();
    return result;
  }
  bool reads_tables() const override { return inner_.reads_tables(); }
  double num_rows() const {
    double sum = 0;
    for (const scheduler::InstanceWork& work : inner_.last_work()) sum += work.num_rows;
    return sum;
  }
  Timer timer;

 private:
  sim::SimRunner inner_;
};

struct Times {
  double step_us = 0.0;
  double runner_us = 0.0;
  double num_rows = 0.0;
};

int64_t num_joins(const Case& c) {
  return static_cast<int64_t>(c.joins * c.num_instances * c.num_each + 0.5);
}

// The scheduler alone; what the caller does with tokens is not timed.
class SchedulerLoad {
 public:
  explicit SchedulerLoad(const Case& c)
      : case_(c), scheduler_(options_of(c), make_policy(c)), random_(1) {
    for (int64_t i = 0; i < int64_t{c.num_instances} * c.num_each; ++i) {
      sequences_.push_back(draw());
      NANOCP_CHECK(scheduler_.add(sequences_.back().get()).ok());
    }
  }

  Times run(int num_steps, scheduler::PlanTables tables) {
    tables_ = tables;
    while (scheduler_.num_waiting() > 0) step(nullptr);
    for (int i = 0; i < kBlockSize / 4; ++i) step(nullptr);
    Timer timer;
    for (int i = 0; i < num_steps; ++i) step(&timer);
    return {.step_us = timer.us() / num_steps, .num_rows = static_cast<double>(num_sampled_)};
  }

 private:
  std::unique_ptr<Sequence> draw() {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = ++num_drawn_;
    sequence->request = draw_request(case_, random_);
    return sequence;
  }

  // Others in place of some; the caller's part of it is not timed.
  void step(Timer* timer) {
    std::vector<std::unique_ptr<Sequence>> others;
    for (int64_t i = 0; timer != nullptr && i < num_joins(case_); ++i) others.push_back(draw());
    if (timer != nullptr) timer->start();
    for (auto& other : others) {
      auto& place = sequences_[random_.below(sequences_.size())];
      scheduler_.remove(place->id, FinishReason::kCancelled);
      NANOCP_CHECK(scheduler_.add(other.get()).ok());
      std::swap(place, other);
    }
    const scheduler::StepPlan& plan = scheduler_.plan_step(tables_);
    if (!plan.empty()) scheduler_.commit_step();
    if (timer != nullptr) timer->stop();
    num_sampled_ = 0;
    for (const scheduler::SamplingSequence& sample : plan.samples) {
      sample.sequence->output.push_back(0);
      ++num_sampled_;
    }
  }

  const Case case_;
  std::vector<std::unique_ptr<Sequence>> sequences_;
  scheduler::Scheduler scheduler_;
  Random random_;
  scheduler::PlanTables tables_ = scheduler::PlanTables::kNone;
  SequenceId num_drawn_ = 0;
  int64_t num_sampled_ = 0;
};

scheduler::CostModel cost_model(const Case& c) {
  scheduler::CostModel model;
  model.shape.num_instances = c.num_instances;
  model.shape.num_instances_per_domain = kPerDomain;
  model.constants.step_fixed_us = 1000.0;
  model.constants.attention_us_per_kv_token = 1e-3;
  return model;
}

Times time_engine(const Case& c, int num_steps) {
  ManualClock clock;
  TimedRunner runner(cost_model(c), clock);
  engine::Engine engine({.scheduler = options_of(c), .eos_token_ids = {}}, make_policy(c), runner,
                        clock, Random(1));
  Random random(1);
  std::vector<SequenceId> open;
  for (int64_t i = 0; i < int64_t{c.num_instances} * c.num_each; ++i) {
    open.push_back(*engine.add_request(draw_request(c, random)));
  }
  while (engine.scheduler().num_waiting() > 0) NANOCP_CHECK(engine.step().ok());
  for (int i = 0; i < kBlockSize / 4; ++i) NANOCP_CHECK(engine.step().ok());
  runner.timer = Timer();
  Timer timer;
  for (int i = 0; i < num_steps; ++i) {
    std::vector<request::Request> others;
    for (int64_t j = 0; j < num_joins(c); ++j) others.push_back(draw_request(c, random));
    timer.start();
    for (request::Request& other : others) {
      SequenceId& place = open[random.below(open.size())];
      engine.cancel(place);
      place = *engine.add_request(std::move(other));
    }
    {
      const auto events = engine.step();
      NANOCP_CHECK(events.ok());
    }
    timer.stop();
  }
  return {.step_us = timer.us() / num_steps,
          .runner_us = runner.timer.us() / num_steps,
          .num_rows = runner.num_rows()};
}

void run(const Case& c, int num_steps) {
  const Times alone = SchedulerLoad(c).run(num_steps, scheduler::PlanTables::kNone);
  // With the tables that devices read, for groups of a size that one process drives.
  const bool has_tables = c.num_instances <= 64;
  const double tables_us =
      has_tables ? SchedulerLoad(c).run(num_steps, scheduler::PlanTables::kBuilt).step_us : 0.0;
  const Times all = time_engine(c, num_steps);
  const double engine_us = all.step_us - all.runner_us - alone.step_us;
  std::printf("%-42s %7.0f %10.1f (%5.1f) %10.1f %10.1f %10.1f (%5.1f) %12.1f\n",
              name_of(c).c_str(), all.num_rows, alone.step_us, 1e3 * alone.step_us / all.num_rows,
              engine_us, all.runner_us, all.step_us, 1e3 * all.step_us / all.num_rows, tables_us);
  std::fflush(stdout);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  // 0.2 %: outputs of 500 tokens.
  for (const double joins : {0.0, 0.002, 0.01}) {
    for (const auto& [instances, each] :
         std::vector<std::pair<int, int>>{{8, 64}, {32, 64}, {64, 64}, {512, 16}, {512, 64}}) {
      cases.push_back({"bound/least_requests", instances, each, joins, 0.0});
      cases.push_back({"dcp", instances, each, joins, 0.02});
      if (instances <= 64) cases.push_back({"uniform_cp/8", instances, each, joins, 0.0});
    }
  }
  return cases;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  int num_steps = 256;
  std::string filter;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--steps") == 0) num_steps = std::max(1, std::atoi(argv[i + 1]));
    if (std::strcmp(argv[i], "--filter") == 0) filter = argv[i + 1];
  }
  std::printf("%-42s %7s %18s %10s %10s %18s %12s\n", "us per step (ns per row)", "rows",
              "scheduler", "engine", "runner", "all", "with tables");
  for (const nanocp::Case& c : nanocp::all_cases()) {
    if (nanocp::name_of(c).find(filter) != std::string::npos) nanocp::run(c, num_steps);
  }
  return 0;
}
