// The GPU runner against golden results of an independent implementation, and against itself:
// whatever the number of GPUs and the placement, with graphs and without. Needs a GPU, and the
// fixtures with real head sizes: NANOCP_LARGE_FIXTURES names their folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "e2e/test_model.h"
#include "e2e/test_policies.h"
#include "engine/test_constraint.h"
#include "gpu/large_fixture.h"
#include "ops/sampling.h"
#include "runner/device_runner.h"

namespace nanocp::e2e {
namespace {

constexpr double kTolerance = 2e-2;     // of max |logit|, for bf16 activations
constexpr double kFp8Tolerance = 6e-2;  // likewise, the median over cases
constexpr int kBlockSize = 16;
constexpr int64_t kNumBlocks = 1024;
constexpr int kMaxRows = 256;

int scaled(int count) {
  const char* scale = std::getenv("NANOCP_GPU_TEST_SCALE");
  return std::max(1, static_cast<int>(count * (scale != nullptr ? std::atof(scale) : 1.0)));
}

runner::DeviceRunnerOptions runner_options(
    int num_instances, bool use_graphs, bool keep_logits = true,
    runner::ExchangeTransport exchange = runner::ExchangeTransport::kAuto) {
  runner::DeviceRunnerOptions options;
  options.num_instances = num_instances;
  options.block_size = kBlockSize;
  options.num_blocks = kNumBlocks;
  options.max_rows = kMaxRows;
  options.max_graph_rows = 64;
  options.use_graphs = use_graphs;
  options.exchange = exchange;
  options.wait_timeout_us = 5'000'000;
  options.step_timeout_us = 120'000'000;
  options.keep_logits = keep_logits;  // then no step runs ahead
  return options;
}

std::unique_ptr<runner::DeviceRunner> make_runner(const TestModel& model,
                                                  const runner::DeviceRunnerOptions& options) {
  auto runner = runner::create_device_runner(model.spec, model.weights, options);
  EXPECT_TRUE(runner.ok()) << runner.error().message;
  return runner.ok() ? std::move(runner).value() : nullptr;
}

std::unique_ptr<runner::DeviceRunner> make_runner(
    const TestModel& model, int num_instances, bool use_graphs, bool keep_logits = true,
    runner::ExchangeTransport exchange = runner::ExchangeTransport::kAuto) {
  return make_runner(model, runner_options(num_instances, use_graphs, keep_logits, exchange));
}

std::unique_ptr<runner::DeviceRunner> make_fp8_cache_runner(const TestModel& model,
                                                            int num_instances, bool use_graphs) {
  runner::DeviceRunnerOptions options = runner_options(num_instances, use_graphs);
  options.kv_format = tensor::KvFormat::kFp8;
  return make_runner(model, options);
}

RunOptions run_options(int num_instances) {
  RunOptions options;
  options.num_instances = num_instances;
  options.block_size = kBlockSize;
  options.num_blocks = kNumBlocks;
  options.max_batched_tokens = kMaxRows;
  return options;
}

double largest_magnitude(const std::vector<float>& values) {
  double largest = 0.0;
  for (const float value : values) largest = std::max(largest, std::abs(double{value}));
  return largest;
}

// Behind these tokens two experts' scores are so close that rounding decides: noise of 2^-9 on the
// activations of the float32 model turns them too, over margins beyond the bar (route_ties.py).
struct RouteTie {
  const char* fixture;
  size_t number;  // of the case
  size_t token;
};
constexpr RouteTie kRouteTies[] = {
    {"deepseek_v3_gpu", 0, 9}, {"deepseek_v3_gpu", 2, 12}, {"deepseek_v3_gpu", 3, 11}};

bool is_route_tie(const std::string& fixture, size_t number, size_t token) {
  return std::any_of(std::begin(kRouteTies), std::end(kRouteTies), [&](const RouteTie& tie) {
    return tie.fixture == fixture && tie.number == number && tie.token == token;
  });
}

// Prints and checks the errors of every case; a token may differ where two errors close the margin,
// or a route is a tie.
void check_goldens(const TestModel& model, const std::vector<RunOutput>& outputs,
                   const std::string& what) {
  double largest = 0.0;
  int num_ties = 0;
  for (size_t i = 0; i < model.cases.size(); ++i) {
    const GoldenCase& golden = model.cases[i];
    const RunOutput& output = outputs[i];
    ASSERT_EQ(output.tokens.size(), golden.greedy.size() + 1) << what;
    const double error = relative_error(output.logits[0], golden.last_logits);
    largest = std::max(largest, error);
    EXPECT_LE(error, kTolerance) << what << " case " << i;
    bool same = true;
    for (size_t t = 0; t < golden.greedy.size() && same; ++t) {
      same = output.tokens[t] == golden.greedy[t];
      if (same) continue;
      ++num_ties;
      if (is_route_tie(model.name, i, t)) continue;
      EXPECT_LT(golden.top2_margin[t], 2 * kTolerance * largest_magnitude(golden.last_logits))
          << what << " case " << i << " token " << t;
    }
    if (!same) continue;
    const double after = relative_error(output.logits.back(), golden.logits_after);
    largest = std::max(largest, after);
    EXPECT_LE(after, kTolerance) << what << " case " << i << " after";
  }
  std::printf("%-40s largest error %.2e, ties %d\n", what.c_str(), largest, num_ties);
}

std::vector<request::Request> golden_requests(const TestModel& model) {
  std::vector<request::Request> requests;
  for (const GoldenCase& golden : model.cases) {
    requests.push_back(greedy_request(golden.prompt, static_cast<int>(golden.greedy.size()) + 1));
  }
  return requests;
}

std::vector<RunOutput> run(engine::ModelRunner& runner, const TestModel& model,
                           const RunOptions& options, std::unique_ptr<scheduler::Policy> policy,
                           const std::vector<request::Request>& requests) {
  auto outputs = run_requests_on(runner, model, options, std::move(policy), requests);
  EXPECT_TRUE(outputs.ok()) << outputs.error().message;
  return outputs.ok() ? std::move(outputs).value() : std::vector<RunOutput>(requests.size());
}

class DeviceGolden : public LargeFixture {};

TEST_P(DeviceGolden, HoldsForUnevenShardsAndMovingTails) {
  for (int gpus = 1; gpus <= num_gpus(); gpus *= 2) {
    const auto runner = make_runner(model_, gpus, true);
    ASSERT_NE(runner, nullptr);
    for (int degree = 1; degree <= gpus; ++degree) {
      for (const int chunk : {0, 7}) {
        RunOptions options = run_options(gpus);
        options.prefill_chunk_tokens = chunk;
        check_goldens(
            model_,
            run(*runner, model_, options, make_uneven_policy(degree), golden_requests(model_)),
            model_.name + ", " + std::to_string(gpus) + " GPUs, degree " + std::to_string(degree) +
                ", chunk " + std::to_string(chunk));
      }
    }
  }
}

TEST_P(DeviceGolden, GraphsAndLaunchesGiveTheSameBits) {
  const int gpus = std::min(2, num_gpus());
  const auto graphs = make_runner(model_, gpus, true);
  ASSERT_NE(graphs, nullptr);
  const auto with =
      run(*graphs, model_, run_options(gpus), make_uneven_policy(gpus), golden_requests(model_));
  const auto eager = make_runner(model_, gpus, false);
  ASSERT_NE(eager, nullptr);
  const auto without =
      run(*eager, model_, run_options(gpus), make_uneven_policy(gpus), golden_requests(model_));
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].tokens, without[i].tokens) << "case " << i;
    EXPECT_EQ(with[i].logits, without[i].logits) << "case " << i;
  }
}

// Counts the steps that were launched behind another one.
class CountingRunner final : public engine::ModelRunner {
 public:
  explicit CountingRunner(engine::ModelRunner& inner) : inner_(inner) {}
  engine::StepTicket launch(const scheduler::StepPlan& plan) override {
    ++num_steps;
    return inner_.launch(plan);
  }
  Result<engine::StepResult> wait(engine::StepTicket ticket) override {
    return inner_.wait(ticket);
  }
  bool runs_ahead() const override { return inner_.runs_ahead(); }
  bool can_launch_ahead(const scheduler::StepPlan& next) const override {
    const bool can = inner_.can_launch_ahead(next);
    num_ahead += can ? 1 : 0;
    return can;
  }
  int num_steps = 0;
  mutable int num_ahead = 0;

 private:
  engine::ModelRunner& inner_;
};

// Greedy and drawn tokens; with `on_host` also rows that are sampled on the host, and constrained
// ones.
std::vector<request::Request> ahead_requests(const TestModel& model, bool on_host) {
  Random random(11);
  std::vector<request::Request> requests;
  for (int i = 0; i < 24; ++i) {
    std::vector<TokenId> prompt(static_cast<size_t>(random.between(1, 200)));
    for (TokenId& token : prompt) {
      token = static_cast<TokenId>(random.below(static_cast<uint64_t>(model.spec->vocab_size)));
    }
    request::Request request =
        greedy_request(std::move(prompt), static_cast<int>(random.between(1, 60)));
    request.sampling.temperature = i % 2 == 0 ? 0.0F : 1.0F;
    request.sampling.seed = static_cast<uint64_t>(i);
    if (on_host && i % 8 == 3) request.sampling.top_p = 0.9F;
    if (on_host && i % 8 == 5) request.sampling.repetition_penalty = 1.2F;
    if (on_host && i % 8 == 6) {
      request.ignore_eos = false;
      request.constraint = std::make_shared<engine::SumConstraint>(engine::SumConstraint::Options{
          .vocab_size = static_cast<int32_t>(model.spec->vocab_size), .num_tokens = 0, .end = 0});
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

// Runs the requests without and with a step ahead; returns the share of steps launched ahead.
double compare_ahead(runner::DeviceRunner& runner, const TestModel& model, int gpus, bool on_host,
                     bool is_random) {
  const auto requests = ahead_requests(model, on_host);
  std::vector<RunOutput> outputs[2];
  double share = 0.0;
  for (const bool ahead : {false, true}) {
    RunOptions options = run_options(gpus);
    options.async_scheduling = ahead;
    CountingRunner counting(runner);
    outputs[ahead ? 1 : 0] =
        run(counting, model, options, is_random ? make_random_policy(5) : make_uneven_policy(gpus),
            requests);
    share = static_cast<double>(counting.num_ahead) / counting.num_steps;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(outputs[0][i].tokens, outputs[1][i].tokens) << "request " << i;
  }
  std::printf("%s, %d GPUs%s%s: %.2f of the steps launched ahead\n", model.name.c_str(), gpus,
              on_host ? ", some rows sampled on the host" : "",
              is_random ? ", random bindings" : "", share);
  return share;
}

// Tokens of constrained rows are those that the host samples from the same logits and masks.
TEST_P(DeviceGolden, ConstrainedRowsAreSampledAsOnTheHost) {
  const auto runner = make_runner(model_, 1, true);
  ASSERT_NE(runner, nullptr);
  auto requests = ahead_requests(model_, false);
  const auto vocab_size = static_cast<int32_t>(model_.spec->vocab_size);
  for (size_t i = 0; i < requests.size(); i += 3) {
    requests[i].ignore_eos = false;
    requests[i].constraint = std::make_shared<engine::SumConstraint>(
        engine::SumConstraint::Options{.vocab_size = vocab_size, .num_tokens = 0, .end = 0});
  }
  const auto outputs = run(*runner, model_, run_options(1), make_uneven_policy(1), requests);
  for (size_t i = 0; i < requests.size(); i += 3) {
    const auto state = requests[i].constraint->start();
    for (size_t t = 0; t < outputs[i].tokens.size(); ++t) {
      SamplingParams params = requests[i].sampling;
      params.allowed_tokens = state->allowed();
      std::vector<float> logits = outputs[i].logits[t];
      const ops::SampledChoice choice =
          ops::sample(logits, params, {requests[i].prompt, {}}, counter_random(params.seed, t));
      ASSERT_EQ(outputs[i].tokens[t], choice.token) << "request " << i << " token " << t;
      ASSERT_TRUE(state->accept(choice.token));
    }
  }
}

TEST_P(DeviceGolden, AStepAheadGivesTheSameTokens) {
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    for (const bool use_graphs : {true, false}) {
      const auto runner = make_runner(model_, gpus, use_graphs, false);
      ASSERT_NE(runner, nullptr);
      EXPECT_GT(compare_ahead(*runner, model_, gpus, false, false), 0.9);
      compare_ahead(*runner, model_, gpus, false, true);
      compare_ahead(*runner, model_, gpus, true, false);
      compare_ahead(*runner, model_, gpus, true, true);
    }
  }
}

// Both transports run the same kernels on the same values, so whatever they are wrong in shows.
TEST_P(DeviceGolden, TransportsGiveTheSameBits) {
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    const auto nccl = make_runner(model_, gpus, false, true, runner::ExchangeTransport::kNccl);
    ASSERT_NE(nccl, nullptr);
    const auto nvlink = make_runner(model_, gpus, false);
    ASSERT_NE(nvlink, nullptr);
    for (int degree = 1; degree <= gpus; ++degree) {
      for (const int chunk : {0, 7}) {
        RunOptions options = run_options(gpus);
        options.prefill_chunk_tokens = chunk;
        const std::string what = model_.name + " over NCCL, " + std::to_string(gpus) +
                                 " GPUs, degree " + std::to_string(degree) + ", chunk " +
                                 std::to_string(chunk);
        const auto over_nccl =
            run(*nccl, model_, options, make_uneven_policy(degree), golden_requests(model_));
        check_goldens(model_, over_nccl, what);
        const auto over_nvlink =
            run(*nvlink, model_, options, make_uneven_policy(degree), golden_requests(model_));
        for (size_t i = 0; i < over_nccl.size(); ++i) {
          EXPECT_EQ(over_nccl[i].tokens, over_nvlink[i].tokens) << what << " case " << i;
          EXPECT_EQ(over_nccl[i].logits, over_nvlink[i].logits) << what << " case " << i;
        }
      }
    }
  }
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Median over the cases of the error of the logits after the prompt: of single cases nothing can be
// said, since rounding flips which expert a row goes to where two score nearly alike.
double median_error(const std::vector<RunOutput>& outputs,
                    const std::function<const std::vector<float>&(size_t)>& wanted) {
  std::vector<double> errors;
  for (size_t i = 0; i < outputs.size(); ++i) {
    errors.push_back(relative_error(outputs[i].logits[0], wanted(i)));
  }
  return median(errors);
}

TEST_P(DeviceGolden, HoldsOnAverageWithAnFp8Cache) {
  const auto golden = [&](size_t i) -> const std::vector<float>& {
    return model_.cases[i].last_logits;
  };
  for (int gpus = 1; gpus <= std::min(2, num_gpus()); ++gpus) {
    const auto runner = make_fp8_cache_runner(model_, gpus, true);
    const auto eager = make_fp8_cache_runner(model_, gpus, false);
    ASSERT_TRUE(runner != nullptr && eager != nullptr);
    std::vector<RunOutput> local;
    for (int degree = 1; degree <= gpus; ++degree) {
      const auto outputs = run(*runner, model_, run_options(gpus), make_uneven_policy(degree),
                               golden_requests(model_));
      const auto again = run(*eager, model_, run_options(gpus), make_uneven_policy(degree),
                             golden_requests(model_));
      for (size_t i = 0; i < outputs.size(); ++i) {
        EXPECT_EQ(outputs[i].logits, again[i].logits) << "case " << i;
      }
      if (degree == 1) local = outputs;
      const double error = median_error(outputs, golden);
      const double difference = median_error(
          outputs, [&](size_t i) -> const std::vector<float>& { return local[i].logits[0]; });
      EXPECT_LE(error, kFp8Tolerance);
      EXPECT_LE(difference, kFp8Tolerance);
      std::printf(
          "%s with fp8 cache, %d GPUs, degree %d: median error %.2e, against degree 1 %.2e\n",
          model_.name.c_str(), gpus, degree, error, difference);
    }
  }
}

// Random placements move tails and bindings all the time; steps without splits come between.
void compare_transports(const TestModel& model, tensor::KvFormat format) {
  const int gpus = std::min(2, num_gpus());
  runner::DeviceRunnerOptions options = runner_options(gpus, false);
  options.kv_format = format;
  options.exchange = runner::ExchangeTransport::kNccl;
  const auto nccl = make_runner(model, options);
  ASSERT_NE(nccl, nullptr);
  options.exchange = runner::ExchangeTransport::kNvlink;
  const auto nvlink = make_runner(model, options);
  ASSERT_NE(nvlink, nullptr);
  Random random(11);
  for (int round = 0; round < scaled(10); ++round) {
    std::vector<request::Request> requests;
    for (int i = 0; i < 12; ++i) {
      std::vector<TokenId> prompt(static_cast<size_t>(random.between(1, 200)));
      for (TokenId& token : prompt) {
        token = static_cast<TokenId>(random.below(static_cast<uint64_t>(model.spec->vocab_size)));
      }
      requests.push_back(greedy_request(std::move(prompt), 60));
    }
    const uint64_t seed = random.next();
    const auto a = run(*nccl, model, run_options(gpus), make_random_policy(seed), requests);
    const auto b = run(*nvlink, model, run_options(gpus), make_random_policy(seed), requests);
    for (size_t i = 0; i < requests.size(); ++i) {
      ASSERT_EQ(a[i].tokens, b[i].tokens) << "round " << round << " request " << i;
      ASSERT_EQ(a[i].logits, b[i].logits) << "round " << round << " request " << i;
    }
  }
}

TEST_P(DeviceGolden, TransportsAgreeOnRandomPlacements) {
  compare_transports(model_, tensor::KvFormat::kBf16);
}

TEST_P(DeviceGolden, TransportsAgreeOnCachesOfCodes) {
  compare_transports(model_, tensor::KvFormat::kFp8);
}

TEST_P(DeviceGolden, AStepAheadOverNcclGivesTheSameTokens) {
  const int gpus = std::min(2, num_gpus());
  const auto runner = make_runner(model_, gpus, false, false, runner::ExchangeTransport::kNccl);
  ASSERT_NE(runner, nullptr);
  EXPECT_GT(compare_ahead(*runner, model_, gpus, false, false), 0.9);
  compare_ahead(*runner, model_, gpus, true, true);
}

// Requests of random lengths over random split points, holders, bindings and tails.
TEST_P(DeviceGolden, TenThousandStepsOfRandomPlacements) {
  const int gpus = num_gpus();
  const auto runner = make_runner(model_, gpus, true, false);
  ASSERT_NE(runner, nullptr);
  Random random(7);
  const int wanted = scaled(10'000);
  int num_steps = 0;
  while (num_steps < wanted) {
    std::vector<request::Request> requests;
    for (int i = 0; i < 24; ++i) {
      std::vector<TokenId> prompt(static_cast<size_t>(random.between(1, 300)));
      for (TokenId& token : prompt) {
        token = static_cast<TokenId>(random.below(static_cast<uint64_t>(model_.spec->vocab_size)));
      }
      requests.push_back(greedy_request(std::move(prompt), 100));
    }
    RunOptions options = run_options(gpus);
    options.prefill_chunk_tokens = static_cast<int>(random.between(0, 64));
    const auto outputs = run(*runner, model_, options, make_random_policy(random.next()), requests);
    ASSERT_FALSE(HasFailure());
    num_steps += 100;
    for (const RunOutput& output : outputs) ASSERT_EQ(output.tokens.size(), 100U);
  }
  std::printf("%s: at least %d steps on %d GPUs\n", model_.name.c_str(), num_steps, gpus);
}

INSTANTIATE_TEST_SUITE_P(Fixtures, DeviceGolden,
                         testing::Values("qwen3_moe_gpu", "deepseek_v3_gpu", "gpt_oss_gpu"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace nanocp::e2e
