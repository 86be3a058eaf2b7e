#include "server/engine_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "engine/content_runner.h"

namespace nanocp::server {
namespace {

using request::FinishReason;

constexpr int32_t kVocabSize = 1000;
constexpr double kPatienceS = 30.0;

// Keeps what it is told, and lets the test wait for it.
class Collector final : public TokenSink {
 public:
  void admitted(TicketId ticket) override {
    note([&] { admitted_ticket = ticket; });
  }
  void refused(const Error& error) override {
    note([&] {
      refusal = error.message;
      is_over = true;
    });
  }
  void token(size_t index, engine::TokenEvent& event) override {
    if (throws) throw std::runtime_error("a sink that throws");
    note([&] {
      if (tokens.size() <= index) tokens.resize(index + 1);
      tokens[index].push_back(event.token);
      if (event.finish_reason != FinishReason::kNone) ++num_finished;
    });
  }
  void failed(const Error& error) override {
    note([&] {
      failure = error.message;
      is_over = true;
    });
  }

  template <typename Condition>
  bool wait(Condition condition) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::duration<double>(kPatienceS), condition);
  }
  bool wait_finished(size_t count = 1) {
    return wait([this, count] { return num_finished >= count; });
  }
  bool wait_over() {
    return wait([this] { return is_over; });
  }
  bool wait_tokens(size_t count) {
    return wait([this, count] { return !tokens.empty() && tokens[0].size() >= count; });
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::atomic<bool> throws{false};
  TicketId admitted_ticket = 0;
  std::vector<std::vector<TokenId>> tokens;
  size_t num_finished = 0;
  std::string refusal;
  std::string failure;
  bool is_over = false;
  int64_t num_calls = 0;

 private:
  template <typename Change>
  void note(Change change) {
    {
      const std::scoped_lock lock(mutex);
      change();
      ++num_calls;
    }
    changed.notify_all();
  }
};

struct Bench {
  explicit Bench(EngineLoopOptions options = {}, std::vector<int64_t> num_blocks = {64, 64}) {
    engine::EngineOptions engine_options;
    engine_options.scheduler.num_blocks = num_blocks;
    engine_options.scheduler.block_size = 4;
    engine_options.scheduler.max_batched_tokens = 16;
    engine_options.scheduler.max_num_seqs = 8;
    engine_options.vocab_size = kVocabSize;
    engine_options.max_model_len = 400;
    runner = std::make_unique<engine::ContentRunner>(engine::ContentRunner::Options{
        .block_size = 4, .num_blocks = num_blocks, .vocab_size = kVocabSize});
    // Engine thread only.
    runner->during_wait = [this] {
      std::this_thread::sleep_for(std::chrono::microseconds(step_us.load()));
      while (blocks) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (fails) runner->failure = "instance 1 is gone";
    };
    auto policy = scheduler::make_policy("uniform_cp",
                                         {.num_instances = static_cast<int32_t>(num_blocks.size()),
                                          .degree = static_cast<int32_t>(num_blocks.size())});
    engine = std::make_unique<engine::Engine>(engine_options, std::move(*policy), *runner, clock,
                                              Random(1));
    loop = std::make_unique<EngineLoop>(options, *engine, clock, nullptr);
  }

  Result<TicketId> submit(const std::shared_ptr<TokenSink>& sink, int32_t max_tokens,
                          TokenId first = 1, size_t count = 1) const {
    std::vector<request::Request> requests(count);
    for (size_t i = 0; i < count; ++i) {
      requests[i].prompt = prompt_of(first + static_cast<TokenId>(i));
      requests[i].max_tokens = max_tokens;
    }
    return loop->submit(std::move(requests), "test", sink);
  }
  static std::vector<TokenId> prompt_of(TokenId first) {
    std::vector<TokenId> prompt(10);
    std::iota(prompt.begin(), prompt.end(), first);
    return prompt;
  }
  // What the runner's model answers when it is asked nothing else.
  static std::vector<TokenId> answer_of(TokenId first, size_t count) {
    std::vector<TokenId> tokens = prompt_of(first);
    for (size_t i = 0; i < count; ++i) {
      tokens.push_back(engine::ContentRunner::next_token(tokens, kVocabSize));
    }
    return {tokens.begin() + 10, tokens.end()};
  }
  bool wait_empty() const {
    for (int i = 0; i < 3000; ++i) {
      const auto snapshot = loop->snapshot();
      if (loop->num_open() == 0 && kv_cache_usage(*snapshot) == 0.0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  SteadyClock clock;
  std::atomic<int> step_us{0};
  std::atomic<bool> blocks{false};
  std::atomic<bool> fails{false};
  std::unique_ptr<engine::ContentRunner> runner;
  std::unique_ptr<engine::Engine> engine;
  std::unique_ptr<EngineLoop> loop;
};

TEST(EngineLoop, AnswersAreThoseOfEachRequestAlone) {
  Bench bench({.num_delivery_threads = 2});
  constexpr int kThreads = 4;
  constexpr int kEach = 12;
  std::vector<std::shared_ptr<Collector>> sinks(kThreads * kEach);
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      for (int i = t * kEach; i < (t + 1) * kEach; ++i) {
        sinks[static_cast<size_t>(i)] = std::make_shared<Collector>();
        EXPECT_TRUE(bench.submit(sinks[static_cast<size_t>(i)], 20, i + 1, 2).ok());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (size_t i = 0; i < sinks.size(); ++i) {
    ASSERT_TRUE(sinks[i]->wait_finished(2)) << i;
    EXPECT_NE(sinks[i]->admitted_ticket, 0U);
    for (size_t k = 0; k < 2; ++k) {
      EXPECT_EQ(sinks[i]->tokens[k], Bench::answer_of(static_cast<TokenId>(i + k) + 1, 20));
    }
  }
  EXPECT_TRUE(bench.wait_empty());
  EXPECT_EQ(bench.loop->snapshot()->requests.num_finished, kThreads * kEach * 2);
  EXPECT_EQ(bench.loop->snapshot()->tokens.num_output_tokens, kThreads * kEach * 2 * 20);
}

TEST(EngineLoop, CancelFreesKvAndSilencesTheSink) {
  Bench bench;
  bench.step_us = 500;
  const auto sink = std::make_shared<Collector>();
  const auto ticket = bench.submit(sink, 300);
  ASSERT_TRUE(sink->wait_tokens(3));
  bench.loop->cancel(*ticket);
  ASSERT_TRUE(bench.wait_empty());
  int64_t num_calls = 0;
  {
    const std::scoped_lock lock(sink->mutex);
    num_calls = sink->num_calls;
    EXPECT_LT(sink->tokens[0].size(), 300U);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const std::scoped_lock lock(sink->mutex);
  EXPECT_EQ(sink->num_calls, num_calls);
  EXPECT_EQ(bench.loop->snapshot()->requests.num_cancelled, 1);
  bench.loop->cancel(*ticket);  // again: nothing happens
  bench.loop->cancel(12345);
}

TEST(EngineLoop, AnAnswerMayEndBeforeItsLastToken) {
  Bench bench;
  bench.step_us = 500;
  const auto sink = std::make_shared<Collector>();
  const auto ticket = bench.submit(sink, 300, 1, 2);
  ASSERT_TRUE(sink->wait_tokens(3));
  bench.loop->end(*ticket, 0);
  bench.loop->end(*ticket, 7);
  ASSERT_TRUE(sink->wait_finished(1));  // the other one
  ASSERT_TRUE(bench.wait_empty());
  EXPECT_EQ(sink->num_finished, 1U);
  EXPECT_EQ(sink->tokens[1].size(), 300U);
  EXPECT_LT(sink->tokens[0].size(), 300U);
  EXPECT_EQ(bench.loop->snapshot()->requests.num_finished, 2);
}

TEST(EngineLoop, RefusesWhatCanNeverFit) {
  Bench bench({}, {8, 8});
  const auto too_long = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(too_long, 391).ok());
  ASSERT_TRUE(too_long->wait_over());
  EXPECT_NE(too_long->refusal.find("model length of 400"), std::string::npos) << too_long->refusal;
  const auto too_large = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(too_large, 100).ok());
  ASSERT_TRUE(too_large->wait_over());
  EXPECT_NE(too_large->refusal.find("can hold 64"), std::string::npos) << too_large->refusal;
  EXPECT_TRUE(bench.wait_empty());
}

TEST(EngineLoop, AFullQueueRefusesAtOnce) {
  Bench bench({.max_waiting = 4});
  bench.blocks = true;
  std::vector<std::shared_ptr<Collector>> sinks;
  std::string message;
  for (int i = 0; i < 100 && message.empty(); ++i) {
    sinks.push_back(std::make_shared<Collector>());
    const auto ticket = bench.submit(sinks.back(), 5, i + 1);
    if (!ticket.ok()) {
      EXPECT_EQ(ticket.error().code, ErrorCode::kResourceExhausted);
      message = ticket.error().message;
      sinks.pop_back();
    }
  }
  EXPECT_NE(message.find("the queue is full: 4 requests wait"), std::string::npos) << message;
  bench.blocks = false;
  for (const auto& sink : sinks) EXPECT_TRUE(sink->wait_finished());
  EXPECT_TRUE(bench.submit(std::make_shared<Collector>(), 1).ok());
  ASSERT_TRUE(bench.wait_empty());
  EXPECT_EQ(bench.loop->snapshot()->requests.num_refused, 1);
}

TEST(EngineLoop, PromptsThatWaitAreBoundedTogether) {
  Bench bench({.max_waiting_tokens = 25});
  bench.blocks = true;
  std::vector<std::shared_ptr<Collector>> sinks;
  std::vector<TicketId> tickets;
  for (int i = 0; i < 3; ++i) {  // of 10 tokens each: with 20 there is room for another
    sinks.push_back(std::make_shared<Collector>());
    const auto ticket = bench.submit(sinks.back(), 5, i + 1);
    ASSERT_TRUE(ticket.ok()) << ticket.error().message;
    tickets.push_back(*ticket);
  }
  const auto refused = bench.submit(std::make_shared<Collector>(), 5);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::kResourceExhausted);
  EXPECT_NE(refused.error().message.find("30 prompt tokens wait, at most 25 may"),
            std::string::npos)
      << refused.error().message;
  bench.loop->cancel(tickets[2]);
  bench.blocks = false;
  EXPECT_TRUE(sinks[0]->wait_finished());
  EXPECT_TRUE(sinks[1]->wait_finished());
  ASSERT_TRUE(bench.wait_empty());
  // Whatever became of them, they count no more; one that is larger is taken where none waits.
  const auto large = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(large, 3, 1, 4).ok());
  EXPECT_TRUE(large->wait_finished(4));
  ASSERT_TRUE(bench.wait_empty());
  EXPECT_TRUE(bench.submit(std::make_shared<Collector>(), 1).ok());
  EXPECT_EQ(bench.loop->snapshot()->requests.num_refused, 1);
}

TEST(EngineLoop, AFailedEngineTellsEverybody) {
  Bench bench;
  bench.step_us = 200;
  std::vector<std::shared_ptr<Collector>> sinks;
  for (int i = 0; i < 20; ++i) {
    sinks.push_back(std::make_shared<Collector>());
    ASSERT_TRUE(bench.submit(sinks.back(), 300, i + 1).ok());
  }
  ASSERT_TRUE(sinks[0]->wait_tokens(2));
  bench.fails = true;
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->wait_over());
    EXPECT_NE(sink->failure.find("instance 1 is gone"), std::string::npos) << sink->failure;
  }
  const EngineHealth health = bench.loop->health();
  EXPECT_FALSE(health.is_alive());
  EXPECT_NE(health.reason.find("instance 1 is gone"), std::string::npos);
  const auto late = bench.submit(std::make_shared<Collector>(), 1);
  ASSERT_FALSE(late.ok());
  EXPECT_NE(late.error().message.find("instance 1 is gone"), std::string::npos);
  EXPECT_TRUE(bench.loop->wait_idle(kPatienceS));
}

TEST(EngineLoop, AStepThatDoesNotEndIsNoticed) {
  Bench bench({.step_timeout_s = 0.1});
  bench.blocks = true;
  const auto sink = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(sink, 10).ok());
  ASSERT_TRUE(sink->wait_over());
  EXPECT_NE(sink->failure.find("the engine hangs"), std::string::npos) << sink->failure;
  EXPECT_FALSE(bench.loop->health().is_alive());
  EXPECT_FALSE(bench.submit(std::make_shared<Collector>(), 1).ok());
  bench.blocks = false;
  bench.loop->stop("end of the test");
  EXPECT_FALSE(bench.loop->health().is_alive());
}

TEST(EngineLoop, AnIdleEngineIsHealthyAndDoesNotStep) {
  Bench bench({.step_timeout_s = 0.05});
  const auto sink = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(sink, 2).ok());
  ASSERT_TRUE(sink->wait_finished());
  ASSERT_TRUE(bench.wait_empty());
  const uint64_t num_steps = bench.loop->snapshot()->tokens.num_steps;
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_TRUE(bench.loop->health().is_alive());
  bench.loop->stop("end of the test");
  EXPECT_EQ(bench.engine->num_steps(), num_steps);
}

TEST(EngineLoop, DrainingFinishesWhatIsOpen) {
  Bench bench;
  bench.step_us = 500;
  const auto sink = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(sink, 50).ok());
  EXPECT_FALSE(bench.loop->wait_idle(0.001));
  bench.loop->begin_drain();
  const auto late = bench.submit(std::make_shared<Collector>(), 1);
  ASSERT_FALSE(late.ok());
  EXPECT_EQ(late.error().code, ErrorCode::kAborted);
  EXPECT_TRUE(bench.loop->wait_idle(kPatienceS));
  EXPECT_EQ(sink->tokens[0], Bench::answer_of(1, 50));
}

TEST(EngineLoop, StopTellsWhoIsCutOff) {
  Bench bench;
  bench.step_us = 500;
  const auto sink = std::make_shared<Collector>();
  ASSERT_TRUE(bench.submit(sink, 300).ok());
  ASSERT_TRUE(sink->wait_tokens(1));
  bench.loop->stop("the server is shutting down");
  EXPECT_EQ(sink->failure, "the server is shutting down");
  EXPECT_TRUE(bench.loop->health().is_alive());
}

TEST(EngineLoop, ASinkThatThrowsHarmsNobodyElse) {
  Bench bench;
  bench.step_us = 200;
  const auto bad = std::make_shared<Collector>();
  const auto good = std::make_shared<Collector>();
  bad->throws = true;
  ASSERT_TRUE(bench.submit(bad, 300).ok());
  ASSERT_TRUE(bench.submit(good, 20).ok());
  EXPECT_TRUE(bad->wait_over());
  EXPECT_TRUE(good->wait_finished());
  EXPECT_EQ(good->tokens[0], Bench::answer_of(1, 20));
  EXPECT_TRUE(bench.wait_empty());
}

TEST(EngineLoop, SnapshotsShowWhoHoldsWhat) {
  Bench bench({.snapshot_interval_s = 0.0});
  bench.step_us = 2000;
  const auto sink = std::make_shared<Collector>();
  const auto ticket = bench.submit(sink, 300);
  ASSERT_TRUE(sink->wait_tokens(10));
  const auto snapshot = bench.loop->snapshot();
  ASSERT_EQ(snapshot->instances.size(), 2U);
  EXPECT_EQ(snapshot->policy, "uniform_cp");
  EXPECT_EQ(snapshot->requests.num_running, 1);
  ASSERT_EQ(snapshot->long_requests.size(), 1U);
  const LongRequest& request = snapshot->long_requests[0];
  EXPECT_EQ(request.num_prompt_tokens, 10);
  EXPECT_EQ(request.kv_tokens.size(), 2U);
  EXPECT_GE(request.num_kv_tokens, 10);
  ASSERT_EQ(snapshot->num_by_degree.size(), 3U);
  EXPECT_EQ(snapshot->num_by_degree[2], 1);
  EXPECT_EQ(snapshot->instances[0].num_rows + snapshot->instances[1].num_rows, 1);
  EXPECT_EQ(snapshot->instances[0].num_routed_queries + snapshot->instances[1].num_routed_queries,
            1);
  EXPECT_GE(snapshot->step.slowest_over_mean, 1.0);
  bench.loop->cancel(*ticket);
}

// Clients that come and leave at any moment: nothing is left over, and who stays is answered right.
TEST(EngineLoop, RandomCancellationsLeaveNothingBehind) {
  Bench bench({.max_waiting = 64, .num_delivery_threads = 2});
  bench.step_us = 50;
  constexpr int kThreads = 4;
  const int num_each = std::max(10, static_cast<int>(100 * NANOCP_TEST_SCALE));
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      Random random(static_cast<uint64_t>(t) + 1);
      for (int i = 0; i < num_each; ++i) {
        const auto sink = std::make_shared<Collector>();
        const auto first = static_cast<TokenId>(random.next() % 500);
        const auto ticket = bench.submit(sink, 20, first);
        if (!ticket.ok()) continue;
        if (random.next() % 2 == 0) {
          ASSERT_TRUE(sink->wait_finished());
          ASSERT_EQ(sink->tokens[0], Bench::answer_of(first, 20));
          continue;
        }
        if (random.next() % 2 == 0) {
          ASSERT_TRUE(sink->wait_tokens(1 + random.next() % 5));
        }
        bench.loop->cancel(*ticket);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_TRUE(bench.wait_empty());
}

}  // namespace
}  // namespace nanocp::server
