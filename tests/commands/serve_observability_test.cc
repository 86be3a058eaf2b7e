// What a server tells about itself agrees with what its clients saw, with the bundled model.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "served_program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

constexpr const char* kCompletions = "/v1/completions";

std::string body_of(int num_prompt_tokens, int max_tokens) {
  const json body = {{"prompt", std::vector<int>(static_cast<size_t>(num_prompt_tokens), 5)},
                     {"max_tokens", max_tokens},
                     {"ignore_eos", true}};
  return body.dump();
}

// The value of the series whose line begins with `start`; -1 if there is none.
double value_of(const std::string& metrics, const std::string& start) {
  std::istringstream lines(metrics);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(start)) return std::stod(line.substr(line.rfind(' ') + 1));
  }
  return -1.0;
}

// Once the engine has published that nothing runs any more.
std::string idle_metrics(const ServedProgram& server, int num_finished) {
  std::string text;
  for (int i = 0; i < 400; ++i) {
    text = server.ask("GET", "/metrics").body;
    const bool is_idle = value_of(text, "vllm:num_requests_running{") == 0 &&
                         value_of(text, "vllm:e2e_request_latency_seconds_count") == num_finished;
    if (is_idle) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  }
  return text;
}

std::vector<json> lines_of(const std::string& file) {
  std::vector<json> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) lines.push_back(json::parse(line));
  return lines;
}

const std::string kLabels = "{model_name=\"demo\",engine=\"0\"";

// Two requests, of 40 and 25 prompt tokens and 9 and 6 output tokens, on two instances each.
void expect_metrics(const std::string& metrics) {
  const auto value = [&](const std::string& start) { return value_of(metrics, start); };
  EXPECT_EQ(value("vllm:prompt_tokens_total" + kLabels), 65);
  EXPECT_EQ(value("vllm:generation_tokens_total" + kLabels), 15);
  // All prompt tokens, and all output tokens that were rows of a later step.
  EXPECT_EQ(value("vllm:iteration_tokens_total_sum"), 65 + 8 + 5);
  EXPECT_EQ(value("vllm:request_success_total" + kLabels + ",finished_reason=\"length"), 2);
  EXPECT_EQ(value("vllm:time_to_first_token_seconds_count"), 2);
  EXPECT_EQ(value("vllm:inter_token_latency_seconds_count"), 13);
  EXPECT_EQ(value("vllm:request_queue_time_seconds_count"), 2);
  EXPECT_EQ(value("vllm:kv_cache_usage_perc"), 0);
  EXPECT_EQ(value("nanocp:request_degree_sum"), 4);
  EXPECT_GT(value("nanocp:kv_blocks" + kLabels + ",instance_id=\"1\""), 0);
  EXPECT_GT(value("nanocp:step_phase_seconds_total" + kLabels + ",phase=\"attention"), 0);
  EXPECT_EQ(
      value("nanocp:http_responses_total" + kLabels + ",path=\"/v1/completions\",status=\"200\""),
      2);
  // The parts of a request's time are its whole.
  const auto sum = [&](const std::string& part) { return value("vllm:" + part + "_seconds_sum"); };
  EXPECT_NEAR(sum("request_queue_time") + sum("request_prefill_time") + sum("request_decode_time"),
              sum("e2e_request_latency"), 1e-5);
  EXPECT_NEAR(sum("inter_token_latency"), sum("request_decode_time"), 1e-5);
}

void expect_log(const std::string& file) {
  std::map<std::string, json> logged;
  size_t num_completions = 0;
  for (const json& line : lines_of(file)) {
    num_completions += line["path"] == kCompletions ? 1 : 0;
    logged[line["request_id"]] = line;
  }
  EXPECT_EQ(num_completions, 3U);
  const json& first = logged["first"];
  EXPECT_EQ(first["status"], 200);
  EXPECT_EQ(first["prompt_tokens"], 40);
  EXPECT_EQ(first["output_tokens"], 9);
  EXPECT_EQ(first["degree"], 2);
  EXPECT_EQ(first["finish_reason"], "length");
  EXPECT_LE(first["ttft_ms"], first["duration_ms"]);
}

TEST(ServeObservability, MetricsLogAndTraceAgreeWithTheAnswers) {
  const TempFolder folder;
  const std::string log = folder.path() / "access.log";
  const std::string trace = folder.path() / "trace.json";
  ServedProgram server({"--instances", "2", "--cp-degree", "2", "--min-tokens-per-shard", "1",
                        "--access-log", log, "--trace-file", trace, "--served-model-name", "demo"});
  ASSERT_EQ(server.ask("POST", kCompletions, body_of(40, 9), "x-request-id: first\r\n").status,
            200);
  ASSERT_EQ(server.ask("POST", kCompletions, body_of(25, 6)).status, 200);
  EXPECT_EQ(server.ask("POST", kCompletions, "{}").status, 400);
  expect_metrics(idle_metrics(server, 2));
  const json cluster = json::parse(server.ask("GET", "/cluster").body);
  EXPECT_EQ(cluster["totals"]["generated"], 15);
  EXPECT_EQ(cluster["instances"].size(), 2U);
  EXPECT_GE(cluster["history"]["rows"].size(), 1U);
  EXPECT_EQ(server.stop().exit_code, 0);
  expect_log(log);
  const json events = json::parse(read_whole_file(trace))["traceEvents"];
  const auto num_spans = std::count_if(events.begin(), events.end(), [](const json& event) {
    return event["ph"] == "b" && event["name"] == "decode";
  });
  EXPECT_EQ(num_spans, 2);
}

TEST(ServeObservability, AKeyCoversAllButThePage) {
  ServedProgram server({"--api-key", "secret"});
  const HttpAnswer page = server.ask("GET", "/");
  EXPECT_EQ(page.status, 200);
  EXPECT_NE(page.head.find("text/html"), std::string::npos);
  EXPECT_NE(page.body.find("<title>NanoCP</title>"), std::string::npos);
  EXPECT_EQ(page.body.find("secret"), std::string::npos);
  for (const char* path : {"/metrics", "/cluster", "/debug/trace"}) {
    EXPECT_EQ(server.ask("GET", path).status, 401) << path;
    EXPECT_EQ(server.ask("GET", path, "", "Authorization: Bearer secret\r\n").status, 200) << path;
  }
}

TEST(ServeObservability, AnAccessLogThatCannotBeWrittenIsToldAtOnce) {
  const auto result = run_program({"serve", "--port", "0", "--access-log", "/nonexistent/log"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("/nonexistent/log"), std::string::npos) << result.err;
}

}  // namespace
}  // namespace nanocp::tests
