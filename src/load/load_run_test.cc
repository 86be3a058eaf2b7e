#include "load/load_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>

#include "base/clock.h"
#include "http_client/test_server.h"
#include "load/prompt.h"
#include "load/serve_metrics.h"
#include "load/target.h"

namespace nanocp::load {
namespace {

using http_client::TestServer;

constexpr double kMs = 1e3;

std::string token_event(const char* text) {
  return std::string("data: {\"choices\":[{\"index\":0,\"text\":\"") + text + "\"}]}\n\n";
}

// Answers with `count` tokens: the first after `first_ms`, each next after `gap_ms`. Events are cut
// in the middle of a character.
void stream_tokens(TestServer::Call& call, int count, int first_ms, int gap_ms) {
  call.begin_stream();
  const std::string event = token_event("caf\u00e9");
  const size_t cut = event.find("\xc3") + 1;
  for (int i = 0; i < count; ++i) {
    call.wait_ms(i == 0 ? first_ms : gap_ms);
    call.send_chunk(event.substr(0, cut));
    call.send_chunk(event.substr(cut));
  }
  call.send_chunk("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":" +
                  std::to_string(count) + "}}\n\ndata: [DONE]\n\n");
  call.end_stream();
}

class LoadRun : public ::testing::Test {
 protected:
  // Requests at these times, of 3 prompt and 4 output tokens.
  LoadSetup setup_for(const TestServer& server, std::vector<int64_t> times_us) {
    LoadSetup setup;
    setup.client = {.server = *http_client::parse_url(server.url()),
                    .connect_deadline_us = 5'000'000,
                    .first_byte_deadline_us = 20'000'000,
                    .deadline_us = 20'000'000};
    setup.next = [times_us = std::move(times_us), i = size_t{0}]() mutable {
      if (i == times_us.size()) return std::optional<sim::Arrival>();
      return std::optional<sim::Arrival>(
          {.time_us = times_us[i++], .num_prompt_tokens = 3, .num_output_tokens = 4});
    };
    setup.make = [this](int64_t index, sim::Arrival& lengths) {
      return target_->request(prompts_->make(index, lengths), lengths.num_output_tokens);
    };
    return setup;
  }

  static LoadResult run(const LoadSetup& setup) {
    auto result = run_load(setup, [](const LoadProgress&) { return true; });
    EXPECT_TRUE(result.ok());
    return std::move(result).value();
  }

  Result<Target> target_ = Target::make({.base_path = "/v1", .model = "m"});
  std::unique_ptr<PromptSource> prompts_ = random_ids({.low = 1, .high = 9}, 1);
};

// Against the server's own clock: how long it really slept depends on the machine.
TEST_F(LoadRun, TimesAreThoseOfTheServer) {
  std::array<std::array<int64_t, 3>, 3> sent_us{};  // request, first and last token
  const TestServer server([&](TestServer::Call& call) {
    auto& times = sent_us[static_cast<size_t>(call.index)];
    times[0] = SteadyClock().now_us();
    call.begin_stream();
    call.wait_ms(150);
    times[1] = SteadyClock().now_us();
    for (int i = 0; i < 4; ++i) {
      if (i > 0) call.wait_ms(60);
      times[2] = SteadyClock().now_us();
      call.send_chunk(token_event("x"));
    }
    call.send_chunk("data: [DONE]\n\n");
    call.end_stream();
  });
  LoadSetup setup = setup_for(server, std::vector<int64_t>(3));
  setup.concurrency = 1;
  const LoadResult result = run(setup);
  ASSERT_EQ(result.records.size(), 3U);
  for (const RequestRecord& record : result.records) {
    const auto& times = sent_us[static_cast<size_t>(record.index)];
    ASSERT_TRUE(record.is_finished()) << record.error << record.detail;
    EXPECT_EQ(record.num_output_tokens, 4);
    EXPECT_EQ(record.num_prompt_tokens, 3);
    EXPECT_GE(record.ttft_us(), 150 * kMs);
    EXPECT_NEAR(record.ttft_us(), static_cast<double>(times[1] - times[0]), 50 * kMs);
    EXPECT_NEAR(record.tpot_us(), static_cast<double>(times[2] - times[1]) / 3.0, 15 * kMs);
    EXPECT_GE(record.e2e_us(), 330 * kMs);
    EXPECT_NEAR(record.e2e_us(), static_cast<double>(times[2] - times[0]), 50 * kMs);
    EXPECT_GE(record.start_us, record.arrival_us);
  }
  EXPECT_EQ(result.itl.count(), 9);
  EXPECT_NEAR(result.itl.percentiles().p50, 60 * kMs, 30 * kMs);
  EXPECT_GE(result.itl.percentiles().mean, 50 * kMs);
  EXPECT_EQ(result.itl_by_class[0].count(), 9);
  const ServeMetrics metrics = compute_serve_metrics(result, {.ttft_us = 100 * kMs});
  EXPECT_EQ(metrics.all.num_finished, 3);
  EXPECT_EQ(metrics.all.num_good, 0);
  EXPECT_EQ(metrics.all.num_output_tokens, 12);
  EXPECT_NEAR(metrics.output_tokens_per_s, 12 / metrics.window_s, 1e-9);
  EXPECT_FALSE(metrics.meets({.ttft_us = 100 * kMs}));
  EXPECT_EQ(compute_serve_metrics(result, {.ttft_us = 5000 * kMs}).all.num_good, 3);
}

TEST_F(LoadRun, SlowAnswersDoNotDelayArrivals) {
  const TestServer server([](TestServer::Call& call) { stream_tokens(call, 2, 600, 1); });
  std::vector<int64_t> times_us;
  for (int i = 0; i < 40; ++i) times_us.push_back(i * 10'000);
  const LoadResult result = run(setup_for(server, times_us));
  ASSERT_EQ(result.records.size(), 40U);
  // All have started before the first is answered.
  EXPECT_LT(result.records.back().start_us, result.records.front().first_token_us);
  EXPECT_LT(result.lag.start_us.p50, 50 * kMs);
  EXPECT_GT(result.lag.loop_us.max, 0.0);
  EXPECT_EQ(compute_serve_metrics(result, {}).max_running, 40);
}

TEST_F(LoadRun, AClosedLoopKeepsItsConcurrency) {
  std::atomic<int> num_now{0};
  std::atomic<int> num_most{0};
  const TestServer server([&](TestServer::Call& call) {
    const int now = ++num_now;
    num_most = std::max(num_most.load(), now);
    call.begin_stream();
    call.wait_ms(30);
    call.send_chunk(token_event("x") + "data: [DONE]\n\n");
    --num_now;
    call.end_stream();
  });
  LoadSetup setup = setup_for(server, std::vector<int64_t>(20));
  setup.concurrency = 4;
  const LoadResult result = run(setup);
  EXPECT_EQ(result.records.size(), 20U);
  EXPECT_EQ(num_most, 4);
  const ServeMetrics metrics = compute_serve_metrics(result, {});
  EXPECT_EQ(metrics.num_without_usage, 20);
  EXPECT_EQ(metrics.num_short, 20);
  EXPECT_EQ(metrics.all.num_finished, 20);
  EXPECT_LE(metrics.mean_running, 4.01);
}

TEST_F(LoadRun, AClosedLoopEndsWithItsTime) {
  const TestServer server([](TestServer::Call& call) { stream_tokens(call, 1, 20, 0); });
  LoadSetup setup = setup_for(server, std::vector<int64_t>(100'000));
  setup.concurrency = 2;
  setup.duration_us = 300'000;
  setup.warmup_us = 100'000;
  const LoadResult result = run(setup);
  EXPECT_GE(result.records.size(), 4U);
  EXPECT_LE(result.records.size(), 40U);
  EXPECT_LT(result.records.back().start_us, 400'000);
  const ServeMetrics metrics = compute_serve_metrics(result, {});
  EXPECT_GT(metrics.num_unmeasured, 0);
  EXPECT_EQ(metrics.num_unmeasured + metrics.all.num_requests,
            static_cast<int64_t>(result.records.size()));
}

TEST_F(LoadRun, ErrorsAreCountedByTheirKind) {
  const TestServer server([](TestServer::Call& call) {
    switch (call.index) {
      case 0:
        call.answer(429, "application/json", "{\"error\":{\"message\":\"queue is full\"}}");
        return;
      case 1:
        call.begin_stream();
        call.send_chunk(token_event("x"));
        call.close();
        return;
      case 2:
        call.begin_stream();
        call.send_chunk(token_event("x") + "data: {\"error\":{\"message\":\"died\"}}\n\n");
        call.end_stream();
        return;
      case 3:
        call.begin_stream();
        call.send_chunk(token_event("x"));
        call.end_stream();
        return;
      default:
        stream_tokens(call, 4, 0, 0);
    }
  });
  LoadSetup setup = setup_for(server, std::vector<int64_t>(5));
  setup.concurrency = 1;
  const ServeMetrics metrics = compute_serve_metrics(run(setup), {});
  EXPECT_EQ(metrics.all.num_requests, 5);
  EXPECT_EQ(metrics.all.num_finished, 1);
  EXPECT_EQ(metrics.all.num_good, 1);
  ASSERT_EQ(metrics.errors.size(), 4U);
  EXPECT_EQ(metrics.errors.at("http_429").example, "queue is full");
  EXPECT_EQ(metrics.errors.at("connection_cut").count, 1);
  EXPECT_EQ(metrics.errors.at("stream_error").example, "died");
  EXPECT_EQ(metrics.errors.at("stream_cut").count, 1);
}

TEST_F(LoadRun, AnInterruptEndsItWithWhatThereIs) {
  const TestServer server([](TestServer::Call& call) {
    if (call.index == 0) {
      stream_tokens(call, 2, 0, 0);
    } else {
      call.begin_stream();
      call.send_chunk(token_event("x"));
      EXPECT_TRUE(call.wait_for_close(10'000)) << "the client hangs up";
      call.close();
    }
  });
  const auto result =
      run_load(setup_for(server, {0, 1000, 2000, 60'000'000}), [](const LoadProgress& progress) {
        return progress.num_started < 3 || progress.num_tokens < 4;
      });
  ASSERT_TRUE(result.ok());
  EXPECT_TRUE(result->is_interrupted);
  ASSERT_EQ(result->records.size(), 3U) << "the last was never due";
  const ServeMetrics metrics = compute_serve_metrics(*result, {});
  EXPECT_EQ(metrics.all.num_requests, 1);
  EXPECT_EQ(metrics.num_cancelled, 2);
  EXPECT_TRUE(metrics.errors.empty());
}

TEST_F(LoadRun, AnUnknownHostIsTold) {
  const TestServer server([](TestServer::Call&) {});
  LoadSetup setup = setup_for(server, {0});
  setup.client.server.host = "no-such-host.invalid";
  const auto result = run_load(setup, [](const LoadProgress&) { return true; });
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message.rfind("host no-such-host.invalid: ", 0), 0U);
}

TEST(LatencyHistogram, PercentilesAreCloseToExactOnes) {
  LatencyHistogram histogram;
  LatencyHistogram half;
  std::vector<double> values;
  Random random(3);
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(std::exp(random.uniform() * 14.0));
    (i % 2 == 0 ? histogram : half).add(values.back());
  }
  histogram.merge(half);
  const sim::Percentiles exact = sim::percentiles(values);
  const sim::Percentiles close = histogram.percentiles();
  EXPECT_EQ(histogram.count(), 20'000);
  EXPECT_NEAR(close.p50, exact.p50, 0.006 * exact.p50);
  EXPECT_NEAR(close.p90, exact.p90, 0.006 * exact.p90);
  EXPECT_NEAR(close.p99, exact.p99, 0.006 * exact.p99);
  EXPECT_EQ(close.max, exact.max);
  EXPECT_NEAR(close.mean, exact.mean, 1e-9 * exact.mean);
}

}  // namespace
}  // namespace nanocp::load
