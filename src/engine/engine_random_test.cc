// Random adds, cancels and steps on an engine with tiny pools, under every policy and under one
// that decides by chance. After each operation all counters are recomputed; the ContentRunner
// proves that every row saw its own prefix; tokens are compared with an oracle that knows no
// instances at all. Everything is run with one step in flight, with two, and with a chance of each.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "engine/content_runner.h"
#include "engine/engine.h"
#include "engine/test_constraint.h"
#include "scheduler/check_plan.h"

namespace nanocp::engine {
namespace {

using request::FinishReason;
using scheduler::AdmissionDecision;
using scheduler::BindingQuery;
using scheduler::ClusterView;
using scheduler::RequestShape;

constexpr int32_t kVocabSize = 50;
constexpr TokenId kEos = 3;
constexpr int kMaxIdleSteps = 400;  // of the most senior request; more means that it starves

// Any holder for any block, empty shards, any binding at any step, and now and then no answer.
class ChancePolicy final : public scheduler::Policy {
 public:
  explicit ChancePolicy(uint64_t seed) : random_(seed) {}

  std::string_view name() const override { return "chance"; }
  int64_t max_request_blocks(std::span<const int64_t> capacities,
                             const RequestShape&) const override {
    int64_t sum = 0;
    for (const int64_t capacity : capacities) sum += capacity;
    return sum;
  }
  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override {
    if (random_.below(8) == 0) return std::nullopt;
    std::vector<int64_t> num_free;
    int64_t sum = 0;
    for (const auto& load : view.instances) {
      num_free.push_back(load.num_free_blocks);
      sum += load.num_free_blocks;
    }
    if (sum < shape.num_new_blocks) return std::nullopt;
    AdmissionDecision decision{.binding = pick(view), .spans = {}};
    int64_t left = shape.num_new_blocks;
    while (left > 0) {
      const InstanceId holder = pick(view);
      int64_t& room = num_free[static_cast<size_t>(holder)];
      const int64_t count = random_.between(0, std::min(room, left));
      decision.spans.push_back({holder, count});
      room -= count;
      left -= count;
    }
    return decision;
  }
  std::optional<InstanceId> plan_growth(const ClusterView& view,
                                        const RequestShape&) const override {
    if (random_.below(4) == 0) return std::nullopt;
    return pick(view);
  }
  bool permits_growth(const ClusterView&, const RequestShape&, InstanceId) const override {
    return true;
  }
  InstanceId plan_binding(const ClusterView& view, const BindingQuery&) const override {
    return pick(view);
  }

 private:
  InstanceId pick(const ClusterView& view) const {
    return static_cast<InstanceId>(random_.below(static_cast<uint64_t>(view.num_instances())));
  }
  mutable Random random_;
};

// Checks each plan by itself before it is carried out.
class CheckingRunner final : public ModelRunner {
 public:
  CheckingRunner(ModelRunner& inner, scheduler::PlanLimits limits)
      : inner_(inner), limits_(std::move(limits)) {}

  StepTicket launch(const scheduler::StepPlan& plan) override {
    const Status checked = scheduler::check_plan(plan, limits_);
    EXPECT_TRUE(checked.ok()) << checked.error().message;
    return inner_.launch(plan);
  }
  Result<StepResult> wait(StepTicket ticket) override { return inner_.wait(ticket); }
  bool runs_ahead() const override { return inner_.runs_ahead(); }
  bool can_launch_ahead(const scheduler::StepPlan& next) const override {
    return inner_.can_launch_ahead(next);
  }

 private:
  ModelRunner& inner_;
  scheduler::PlanLimits limits_;
};

// What one request should return.
struct Expected {
  request::Request request;
  std::vector<TokenId> output;  // seen so far
  uint64_t num_steps_at_add = 0;
  std::unique_ptr<request::ConstraintState> constraint = nullptr;
};

enum class Ahead { kNever, kAlways, kByChance };

struct Setting {
  std::string policy;
  uint64_t seed;
  Ahead ahead;
};

class RandomRun {
 public:
  explicit RandomRun(const Setting& setting) : random_(setting.seed) {
    EngineOptions options;
    const int64_t num_instances = random_.between(1, 5);
    auto& scheduler = options.scheduler;
    scheduler.block_size = static_cast<int32_t>(random_.between(1, 6));
    for (int64_t i = 0; i < num_instances; ++i)
      scheduler.num_blocks.push_back(random_.between(6, 20));
    scheduler.max_num_seqs = static_cast<int32_t>(random_.between(1, 6));
    scheduler.max_batched_tokens =
        scheduler.max_num_seqs + static_cast<int32_t>(random_.between(0, 20));
    scheduler.prefill_chunk_tokens = static_cast<int32_t>(random_.between(0, 12));
    scheduler.admission_lookahead = static_cast<int32_t>(random_.between(0, 4));
    scheduler.max_overtakes = static_cast<int32_t>(random_.between(0, 5));
    scheduler.num_instances_per_domain = static_cast<int32_t>(random_.between(0, num_instances));
    scheduler.watermark = random_.below(2) == 0 ? 0.0 : 0.1;
    scheduler.reserves_growth = setting.seed % 5 == 0;  // few are preempted with it
    options.eos_token_ids = {kEos};
    max_tokens_ = 24 * scheduler.block_size;
    content_ = std::make_unique<ContentRunner>(
        ContentRunner::Options{.block_size = scheduler.block_size,
                               .num_blocks = scheduler.num_blocks,
                               .vocab_size = kVocabSize,
                               .runs_ahead = setting.ahead != Ahead::kNever});
    if (setting.ahead == Ahead::kByChance) {
      content_->allows_ahead = [this] { return random_.below(2) == 0; };
    }
    runner_ = std::make_unique<CheckingRunner>(
        *content_, scheduler::PlanLimits{scheduler.block_size, scheduler.num_blocks,
                                         scheduler.num_instances_per_domain});
    engine_ = std::make_unique<Engine>(options, make_policy(setting, num_instances), *runner_,
                                       clock_, Random(1));
    content_->during_wait = [this] {
      if (random_.below(40) == 0) cancel();
    };
  }

  void run(int num_ops) {
    for (int op = 0; op < num_ops && !testing::Test::HasFailure(); ++op) {
      const uint64_t kind = random_.below(20);
      if (kind < 3 && expected_.size() < 25) {
        add();
      } else if (kind < 4 && random_.below(4) == 0) {
        cancel();
      } else {
        step();
      }
      engine_->scheduler().check_integrity();
    }
    drain();
  }

  int64_t num_finished() const { return num_finished_; }
  int64_t num_preemptions() const { return num_preemptions_; }
  int64_t num_launched_ahead() const { return content_->num_launched_ahead; }

 private:
  std::unique_ptr<scheduler::Policy> make_policy(const Setting& setting, int64_t num_instances) {
    if (setting.policy == "chance") return std::make_unique<ChancePolicy>(setting.seed);
    const char* const routers[] = {"round_robin", "least_requests", "least_kv", "power_of_two",
                                   "any_instance"};
    const auto degree = static_cast<int32_t>(random_.between(1, num_instances));
    // Half of the runs of dcp have a limit.
    const bool is_limited = setting.policy != "dcp" || random_.below(2) == 0;
    if (is_limited) max_degree_ = setting.policy == "bound" ? 1 : degree;
    auto policy = scheduler::make_policy(setting.policy,
                                         {.num_instances = static_cast<int32_t>(num_instances),
                                          .router = routers[random_.below(std::size(routers))],
                                          .degree = degree,
                                          .threshold_tokens = random_.between(0, 40),
                                          .min_tokens_per_shard = random_.between(1, 30),
                                          .max_degree = is_limited ? degree : 0});
    EXPECT_TRUE(policy.ok());
    return std::move(*policy);
  }

  void add() {
    Expected expected;
    request::Request& request = expected.request;
    const int64_t longest = random_.below(4) == 0 ? max_tokens_ : 10;
    const int64_t num_prompt = random_.between(1, longest);
    for (int64_t i = 0; i < num_prompt; ++i) {
      request.prompt.push_back(static_cast<TokenId>(random_.below(kVocabSize)));
    }
    request.max_tokens = static_cast<int32_t>(random_.between(1, 30));
    request.min_tokens = static_cast<int32_t>(random_.between(0, request.max_tokens));
    request.ignore_eos = random_.below(2) == 0;
    if (random_.below(4) == 0) constrain(expected);
    if (random_.below(4) == 0) request.num_prompt_logprobs = 1;
    request.priority = random_.below(5) == 0 ? static_cast<int32_t>(random_.between(-1, 1)) : 0;
    expected.num_steps_at_add = engine_->num_steps();
    const auto id = engine_->add_request(request);
    if (!id.ok()) {
      EXPECT_EQ(id.error().code, ErrorCode::kResourceExhausted) << id.error().message;
      return;
    }
    expected_.emplace(*id, std::move(expected));
  }

  void constrain(Expected& expected) {
    request::Request& request = expected.request;
    request.min_tokens = 0;
    request.ignore_eos = false;
    const bool ends = random_.below(2) == 0;
    request.constraint = std::make_shared<SumConstraint>(SumConstraint::Options{
        .vocab_size = kVocabSize, .num_tokens = ends ? random_.between(1, 30) : 0, .end = kEos});
    expected.constraint = request.constraint->start();
  }

  void cancel() {
    if (expected_.empty()) return;
    auto it = expected_.begin();
    std::advance(it, static_cast<int64_t>(random_.below(expected_.size())));
    EXPECT_TRUE(engine_->cancel(it->first));
    expected_.erase(it);
  }

  void step() {
    auto events = engine_->step();
    ASSERT_TRUE(events.ok()) << events.error().message;
    for (TokenEvent& event : *events) {
      check_scores(event);
      check_event(event);
    }
    check_most_senior();
  }

  // With the first token, what each prompt token's row should have made of its prefix.
  void check_scores(TokenEvent& event) {
    const std::vector<TokenScore> scores = event.details.take().prompt_scores;
    const auto found = expected_.find(event.sequence);
    ASSERT_TRUE(found != expected_.end());
    const request::Request& request = found->second.request;
    const bool is_due = request.num_prompt_logprobs >= 0 && found->second.output.empty();
    ASSERT_EQ(scores.size(), is_due ? request.prompt.size() - 1 : 0);
    std::vector<TokenId> prefix;
    for (size_t i = 0; i < scores.size(); ++i) {
      prefix.push_back(request.prompt[i]);
      ASSERT_EQ(scores[i].top_logprobs.at(0).first, ContentRunner::next_token(prefix, kVocabSize));
    }
  }

  void check_event(const TokenEvent& event) {
    const auto found = expected_.find(event.sequence);
    ASSERT_TRUE(found != expected_.end());
    Expected& expected = found->second;
    std::vector<TokenId> tokens = expected.request.prompt;
    tokens.insert(tokens.end(), expected.output.begin(), expected.output.end());
    TokenId token = ContentRunner::next_token(tokens, kVocabSize);
    if (expected.constraint != nullptr) {
      token = ContentRunner::allowed_from(token, expected.constraint->allowed().get(), kVocabSize);
      ASSERT_TRUE(expected.constraint->accept(token));
    }
    ASSERT_EQ(event.token, token);
    expected.output.push_back(event.token);
    const auto num_outputs = static_cast<int32_t>(expected.output.size());
    const bool stops = !expected.request.ignore_eos && event.token == kEos &&
                       num_outputs > expected.request.min_tokens;
    const auto reason = stops                                        ? FinishReason::kStop
                        : num_outputs == expected.request.max_tokens ? FinishReason::kLength
                                                                     : FinishReason::kNone;
    ASSERT_EQ(event.finish_reason, reason);
    if (reason == FinishReason::kNone) return;
    ++num_finished_;
    num_preemptions_ += event.summary->num_preemptions;
    expected_.erase(found);
  }

  // The most senior open request loses nothing and does not stand still for long.
  void check_most_senior() {
    const request::Sequence* senior = nullptr;
    for (const auto& [id, expected] : expected_) {
      const request::Sequence* sequence = engine_->sequence(id);
      ASSERT_NE(sequence, nullptr);
      if (engine_->placement(id) == nullptr) continue;  // its last token is on the way
      ASSERT_LE(engine_->placement(id)->degree(), max_degree_);
      if (senior == nullptr || sequence->request.priority < senior->request.priority) {
        senior = sequence;
      }
    }
    if (senior == nullptr) return;
    const bool is_same = senior->id == senior_id_;
    if (is_same) {
      ASSERT_GE(senior->num_cached_tokens, senior_cached_);
    }
    const bool has_moved = !is_same || senior->num_cached_tokens > senior_cached_;
    num_idle_steps_ = has_moved ? 0 : num_idle_steps_ + 1;
    senior_id_ = senior->id;
    senior_cached_ = senior->num_cached_tokens;
    ASSERT_LT(num_idle_steps_, kMaxIdleSteps) << "sequence " << senior_id_ << " starves";
  }

  void drain() {
    content_->during_wait = nullptr;
    int64_t num_steps_max = 1000;
    for (const auto& [id, expected] : expected_) {
      num_steps_max += 4 * (std::ssize(expected.request.prompt) + expected.request.max_tokens);
    }
    for (int64_t i = 0; i < num_steps_max && engine_->has_work(); ++i) {
      if (testing::Test::HasFailure()) return;
      step();
      engine_->scheduler().check_integrity();
    }
    EXPECT_FALSE(engine_->has_work());
    EXPECT_TRUE(expected_.empty());
    for (const auto& load : engine_->loads()) {
      EXPECT_EQ(load.num_free_blocks, load.num_blocks);
      EXPECT_EQ(load.num_kv_tokens, 0);
      EXPECT_EQ(load.num_sequences, 0);
    }
  }

  Random random_;
  ManualClock clock_;
  std::unique_ptr<ContentRunner> content_;
  std::unique_ptr<CheckingRunner> runner_;
  std::unique_ptr<Engine> engine_;
  std::map<SequenceId, Expected> expected_;  // open ones
  int64_t max_tokens_ = 0;
  int32_t max_degree_ = 100;  // that the policy may give
  int64_t num_finished_ = 0;
  int64_t num_preemptions_ = 0;
  SequenceId senior_id_ = 0;
  int64_t senior_cached_ = 0;
  int num_idle_steps_ = 0;
};

class EngineRandom : public testing::TestWithParam<std::tuple<std::string, Ahead>> {};

TEST_P(EngineRandom, KeepsEveryInvariant) {
  const auto num_seeds = static_cast<uint64_t>(std::ceil(100 * NANOCP_TEST_SCALE));
  constexpr int kNumOps = 500;
  int64_t num_finished = 0;
  int64_t num_preemptions = 0;
  int64_t num_launched_ahead = 0;
  const auto& [policy, ahead] = GetParam();
  for (uint64_t seed = 1; seed <= num_seeds; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomRun run({.policy = policy, .seed = seed, .ahead = ahead});
    run.run(kNumOps);
    num_finished += run.num_finished();
    num_preemptions += run.num_preemptions();
    num_launched_ahead += run.num_launched_ahead();
    ASSERT_FALSE(HasFailure());
  }
  // The pools are so small that preemption is common; otherwise this proves little.
  EXPECT_LT(20 * num_seeds, static_cast<uint64_t>(num_finished));
  EXPECT_LT(2 * num_seeds, static_cast<uint64_t>(num_preemptions));
  if (ahead == Ahead::kNever) {
    EXPECT_EQ(num_launched_ahead, 0);
  } else {
    EXPECT_LT(20 * num_seeds, static_cast<uint64_t>(num_launched_ahead));
  }
  RecordProperty("finished", static_cast<int>(num_finished));
  RecordProperty("preemptions", static_cast<int>(num_preemptions));
}

std::string name_of(const testing::TestParamInfo<EngineRandom::ParamType>& tested) {
  constexpr const char* kNames[] = {"", "_ahead", "_by_chance"};
  const auto& [policy, ahead] = tested.param;
  return policy + kNames[static_cast<int>(ahead)];
}

INSTANTIATE_TEST_SUITE_P(
    Policies, EngineRandom,
    testing::Combine(testing::Values("bound", "uniform_cp", "threshold_cp", "dcp", "chance"),
                     testing::Values(Ahead::kNever, Ahead::kAlways, Ahead::kByChance)),
    name_of);

}  // namespace
}  // namespace nanocp::engine
