// The exposition says what happened, under names and labels that dashboards expect.
#include "server/metrics.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "base/random.h"

namespace nanocp::server {
namespace {

using request::FinishReason;

// Of a text in Prometheus' format: series, with labels as they stand, to value. Every line must
// be of the format, and every series follow the TYPE of its family.
std::map<std::string, double> parse(const std::string& text) {
  static const std::regex kSeries(
      R"(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? (\S+))");
  std::map<std::string, double> series;
  std::set<std::string> families;
  std::string family;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("# HELP ")) continue;
    if (line.starts_with("# TYPE ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(family).second) << family << " comes twice";
      continue;
    }
    std::smatch match;
    if (!std::regex_match(line, match, kSeries)) {
      ADD_FAILURE() << "not of the format: " << line;
      continue;
    }
    EXPECT_TRUE(match[1].str().starts_with(family)) << line;
    const bool is_new =
        series
            .emplace(match[1].str() + match[2].str(), std::strtod(match[3].str().c_str(), nullptr))
            .second;
    EXPECT_TRUE(is_new) << "twice: " << line;
  }
  return series;
}

std::string labelled(const std::string& name, const std::string& more = "") {
  return name + R"({model_name="demo",engine="0")" + (more.empty() ? "" : "," + more) + "}";
}

ClusterSnapshot snapshot_of_two() {
  ClusterSnapshot snapshot;
  snapshot.block_size = 16;
  snapshot.policy = "dcp";
  snapshot.instances = {{.num_blocks = 100,
                         .num_used_blocks = 25,
                         .num_kv_tokens = 390,
                         .num_sequences = 3,
                         .num_rows = 7,
                         .num_routed_queries = 2,
                         .num_attended_kv_tokens = 800},
                        {.num_blocks = 100,
                         .num_used_blocks = 50,
                         .num_kv_tokens = 795,
                         .num_sequences = 4,
                         .num_rows = 9,
                         .num_routed_queries = 0,
                         .num_attended_kv_tokens = 600}};
  snapshot.num_by_degree = {0, 6, 1};
  snapshot.requests = {.num_waiting = 5, .num_running = 7, .num_finished = 2, .num_refused = 3};
  snapshot.step.slowest_over_mean = 1.25;
  snapshot.tokens = {
      .num_prompt_tokens = 1000, .num_output_tokens = 340, .num_preemptions = 2, .num_steps = 50};
  return snapshot;
}

SequenceRecord finished_record() {
  SequenceRecord record;
  record.num_prompt_tokens = 100;
  record.num_output_tokens = 5;
  record.max_tokens = 5;
  record.arrival_us = 1'000'000;
  record.scheduled_us = 1'200'000;
  record.first_token_us = 1'600'000;
  record.last_token_us = 2'000'000;
  record.end_us = 2'000'000;
  record.finish_reason = FinishReason::kLength;
  record.summary.kv_tokens = {{0, 60}, {1, 44}};
  return record;
}

class MetricsText : public ::testing::Test {
 protected:
  std::map<std::string, double> series() const { return parse(metrics_.text(snapshot_of_two())); }

  Metrics metrics_{{.model_name = "demo", .version = "1.2", .max_model_len = 4096}};
};

TEST_F(MetricsText, StateOfTheClusterIsThatOfTheSnapshot) {
  auto series = this->series();
  EXPECT_EQ(series.at(labelled("vllm:num_requests_running")), 7);
  EXPECT_EQ(series.at(labelled("vllm:num_requests_waiting")), 5);
  EXPECT_DOUBLE_EQ(series.at(labelled("vllm:kv_cache_usage_perc")), 0.375);
  EXPECT_EQ(series.at(labelled("vllm:prompt_tokens_total")), 1000);
  EXPECT_EQ(series.at(labelled("vllm:generation_tokens_total")), 340);
  EXPECT_EQ(series.at(labelled("vllm:num_preemptions_total")), 2);
  EXPECT_EQ(series.at(labelled("nanocp:kv_blocks_used", R"(instance_id="1")")), 50);
  EXPECT_EQ(series.at(labelled("nanocp:rows", R"(instance_id="0")")), 7);
  EXPECT_EQ(series.at(labelled("nanocp:routed_queries", R"(instance_id="0")")), 2);
  EXPECT_EQ(series.at(labelled("nanocp:num_requests_by_degree", R"(degree="2")")), 1);
  EXPECT_DOUBLE_EQ(series.at(labelled("nanocp:attention_slowest_over_mean")), 1.25);
  EXPECT_EQ(series.at(labelled("nanocp:requests_refused_total")), 3);
  EXPECT_EQ(
      series.at(labelled("vllm:cache_config_info", R"(block_size="16",num_gpu_blocks="200")")), 1);
  EXPECT_GT(series.at("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(series.at("process_open_fds"), 2);
}

TEST_F(MetricsText, AFinishedRequestIsInEveryHistogramOnce) {
  metrics_.on_end(finished_record());
  auto series = this->series();
  const std::map<std::string, double> sums = {{"vllm:e2e_request_latency_seconds", 1.0},
                                              {"vllm:request_queue_time_seconds", 0.2},
                                              {"vllm:request_inference_time_seconds", 0.8},
                                              {"vllm:request_prefill_time_seconds", 0.4},
                                              {"vllm:request_decode_time_seconds", 0.4},
                                              {"vllm:request_time_per_output_token_seconds", 0.1},
                                              {"vllm:request_prompt_tokens", 100},
                                              {"vllm:request_generation_tokens", 5},
                                              {"vllm:request_params_max_tokens", 5},
                                              {"nanocp:request_degree", 2}};
  for (const auto& [name, sum] : sums) {
    EXPECT_EQ(series.at(labelled(name + "_count")), 1) << name;
    EXPECT_NEAR(series.at(labelled(name + "_sum")), sum, 1e-9) << name;
    EXPECT_EQ(series.at(labelled(name + "_bucket", R"(le="+Inf")")), 1) << name;
  }
  // A bucket takes what is at most its bound.
  EXPECT_EQ(series.at(labelled("vllm:e2e_request_latency_seconds_bucket", R"(le="0.8")")), 0);
  EXPECT_EQ(series.at(labelled("vllm:e2e_request_latency_seconds_bucket", R"(le="1")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:request_success_total", R"(finished_reason="length")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:request_success_total", R"(finished_reason="stop")")), 0);
}

TEST_F(MetricsText, ACancelledRequestCountsAsAbortedAndHasNoTimes) {
  SequenceRecord record = finished_record();
  record.finish_reason = FinishReason::kCancelled;
  metrics_.on_end(record);
  auto series = this->series();
  EXPECT_EQ(series.at(labelled("vllm:request_success_total", R"(finished_reason="abort")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:e2e_request_latency_seconds_count")), 0);
}

TEST_F(MetricsText, StepsGiveTimesOfTokensAndPhases) {
  const std::vector<double> inter_token_s = {0.02, 0.03, 0.2};
  const std::vector<double> first_token_s = {0.5};
  using engine::PhaseSpan;
  // Instance 0 works 3 ms, instance 1 works 1 ms and waits 2 ms.
  const std::vector<std::vector<PhaseSpan>> spans = {
      {{StepPhase::kDense, 0, 0, 1000}, {StepPhase::kAttention, 0, 1000, 2000}},
      {{StepPhase::kDense, 0, 0, 1000}, {StepPhase::kIdleWait, 0, 1000, 2000}}};
  metrics_.on_step({.start_us = 0,
                    .end_us = 3000,
                    .num_rows = 70,
                    .num_tokens = 4,
                    .inter_token_s = inter_token_s,
                    .first_token_s = first_token_s,
                    .spans = spans});
  auto series = this->series();
  for (const char* name :
       {"vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"}) {
    EXPECT_EQ(series.at(labelled(std::string(name) + "_count")), 3);
    EXPECT_NEAR(series.at(labelled(std::string(name) + "_sum")), 0.25, 1e-12);
    EXPECT_EQ(series.at(labelled(std::string(name) + "_bucket", R"(le="0.025")")), 1);
    EXPECT_EQ(series.at(labelled(std::string(name) + "_bucket", R"(le="0.05")")), 2);
  }
  EXPECT_EQ(series.at(labelled("vllm:time_to_first_token_seconds_bucket", R"(le="0.5")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:time_to_first_token_seconds_bucket", R"(le="0.25")")), 0);
  EXPECT_EQ(series.at(labelled("vllm:iteration_tokens_total_bucket", R"(le="64")")), 0);
  EXPECT_EQ(series.at(labelled("vllm:iteration_tokens_total_bucket", R"(le="128")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:iteration_tokens_total_bucket", R"(le="16384")")), 1);
  EXPECT_EQ(series.at(labelled("vllm:iteration_tokens_total_sum")), 70);
  EXPECT_EQ(series.at(labelled("nanocp:step_output_tokens_sum")), 4);
  EXPECT_NEAR(series.at(labelled("nanocp:step_seconds_sum")), 0.003, 1e-12);
  EXPECT_NEAR(series.at(labelled("nanocp:step_phase_seconds_total", R"(phase="dense")")), 0.001,
              1e-12);
  EXPECT_NEAR(series.at(labelled("nanocp:step_phase_seconds_total", R"(phase="idle_wait")")), 0.001,
              1e-12);
  EXPECT_NEAR(series.at(labelled("nanocp:step_slowest_over_mean_sum")), 1.5, 1e-9);
}

TEST_F(MetricsText, WhatIsNotMeasuredIsNotThere) {
  metrics_.on_step({.start_us = 0, .end_us = 3000});
  const std::string text = metrics_.text(snapshot_of_two());
  EXPECT_EQ(text.find("step_phase_seconds"), std::string::npos);
  EXPECT_EQ(text.find("step_slowest_over_mean"), std::string::npos);
}

TEST_F(MetricsText, LabelsOfAnyModelNameAreEscaped) {
  const Metrics metrics({.model_name = "a\"b\\c\nd", .version = "", .max_model_len = 10});
  const auto series = parse(metrics.text(snapshot_of_two()));
  EXPECT_EQ(series.count(R"(vllm:num_requests_running{model_name="a\"b\\c\nd",engine="0"})"), 1U);
}

// A query of the dashboard names series that exist.
TEST_F(MetricsText, TheDashboardAsksForWhatIsThere) {
  metrics_.count_response("/", 200);
  const std::vector<std::vector<engine::PhaseSpan>> spans = {{{StepPhase::kDense, 0, 0, 1000}}};
  metrics_.on_step({.start_us = 0, .end_us = 3000, .spans = spans});
  std::set<std::string> names;
  std::set<std::string> labels;
  static const std::regex kLabel("([a-z_]+)=\"");
  for (const auto& [series, value] : this->series()) {
    names.insert(series.substr(0, series.find('{')));
    for (std::sregex_iterator at(series.begin(), series.end(), kLabel), end; at != end; ++at) {
      labels.insert((*at)[1]);
    }
  }
  std::ifstream file("docs/grafana/nanocp.json");
  const auto dashboard = nlohmann::json::parse(file);
  size_t num_queries = 0;
  static const std::regex kName("(?:vllm|nanocp):[a-z0-9_]+|process_[a-z_]+");
  static const std::regex kBy(R"(by \(([a-z_]+)\))");
  for (const auto& panel : dashboard["panels"]) {
    for (const auto& target : panel.value("targets", nlohmann::json::array())) {
      const auto query = target["expr"].get<std::string>();
      ++num_queries;
      const std::sregex_iterator end;
      ASSERT_NE(std::sregex_iterator(query.begin(), query.end(), kName), end) << query;
      for (std::sregex_iterator at(query.begin(), query.end(), kName); at != end; ++at) {
        EXPECT_TRUE(names.contains(at->str())) << at->str() << " in " << query;
      }
      for (std::sregex_iterator at(query.begin(), query.end(), kBy); at != end; ++at) {
        EXPECT_TRUE(labels.contains((*at)[1])) << (*at)[1] << " in " << query;
      }
    }
  }
  EXPECT_GT(num_queries, 30U);
}

TEST_F(MetricsText, ResponsesAreCountedByRouteAndStatus) {
  metrics_.count_response("/v1/models", 200);
  metrics_.count_response("/v1/models", 200);
  metrics_.count_response("/v1/models", 401);
  auto series = this->series();
  EXPECT_EQ(series.at(labelled("nanocp:http_responses_total", R"(path="/v1/models",status="200")")),
            2);
  EXPECT_EQ(series.at(labelled("nanocp:http_responses_total", R"(path="/v1/models",status="401")")),
            1);
}

TEST_F(MetricsText, IsWholeWhileTheEngineRecords) {
  std::thread recorder([this] {
    const std::vector<double> times = {0.01, 0.02};
    for (int i = 0; i < 20'000; ++i) {
      metrics_.on_step({.start_us = 0, .end_us = 1000, .num_tokens = 2, .inter_token_s = times});
      metrics_.on_end(finished_record());
    }
  });
  double before = 0.0;
  for (int i = 0; i < 20; ++i) {
    const double count = series().at(labelled("vllm:inter_token_latency_seconds_count"));
    EXPECT_GE(count, before);
    before = count;
  }
  recorder.join();
  EXPECT_EQ(series().at(labelled("vllm:inter_token_latency_seconds_count")), 40'000);
}

TEST(Histogram, CountsAsANaiveOneDoes) {
  const std::vector<double> bounds = {0.1, 0.5, 1, 4};
  Histogram histogram(bounds);
  Random random(7);
  std::vector<uint64_t> expected(bounds.size() + 1);
  double sum = 0.0;
  for (int i = 0; i < 1000; ++i) {
    const double value = i % 10 == 0 ? bounds[static_cast<size_t>(i / 10) % bounds.size()]
                                     : static_cast<double>(random.next() % 600) / 100.0;
    size_t bucket = 0;
    while (bucket < bounds.size() && value > bounds[bucket]) ++bucket;
    ++expected[bucket];
    sum += value;
    histogram.observe(value);
  }
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(histogram.count(i), expected[i]) << i;
  EXPECT_EQ(histogram.total(), 1000U);
  EXPECT_NEAR(histogram.sum(), sum, 1e-9);
}

}  // namespace
}  // namespace nanocp::server
