// What clients and supervisors see of `nanocp serve` when its engine fails: everybody is told, and
// the process ends with exit code 1 soon after, so that another one can take its place.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "served_program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;
using std::chrono::steady_clock;

constexpr const char* kCompletions = "/v1/completions";
// From the failure to the end of the process, on a busy machine.
constexpr std::chrono::seconds kEndsWithin{30};

std::string body_of(int num_prompt_tokens, bool streams) {
  const json body = {{"prompt", std::vector<int>(static_cast<size_t>(num_prompt_tokens), 5)},
                     {"max_tokens", 2000},
                     {"ignore_eos", true},
                     {"stream", streams}};
  return body.dump();
}

TEST(ServeFailure, AFailedEngineTellsItsClientsAndEndsTheProcess) {
  const TempFolder folder;
  const std::string log = folder.path() / "access.log";
  const std::string trace = folder.path() / "trace.json";
  // One instance works longer on a prompt than the other one may wait for it.
  ServedProgram server(
      {"--instances", "2", "--wait-timeout", "0.001", "--access-log", log, "--trace-file", trace});
  http::TestClient client = server.client();
  client.send(ServedProgram::request_text("POST", kCompletions, body_of(4000, true),
                                          "x-request-id: cut\r\n"));
  const HttpAnswer stream = ServedProgram::parse(client.read_all(60.0));
  const auto failed_at = steady_clock::now();
  EXPECT_EQ(stream.status, 200);
  const size_t error = stream.body.find("data: {\"error\":");
  ASSERT_NE(error, std::string::npos) << stream.body;
  EXPECT_NE(stream.body.find("the engine has failed: ", error), std::string::npos) << stream.body;
  const HttpAnswer health = server.ask("GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_NE(health.body.find("the engine has failed: "), std::string::npos) << health.body;
  const HttpAnswer late = server.ask("POST", kCompletions, body_of(1, false));
  EXPECT_EQ(late.status, 503);
  EXPECT_NE(late.head.find("Retry-After: "), std::string::npos) << late.head;

  const ProgramResult result = server.join();
  EXPECT_LT(steady_clock::now() - failed_at, kEndsWithin);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("error: the engine has failed: "), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("ending with exit code 1"), std::string::npos) << result.err;
  EXPECT_NE(read_whole_file(log).find("\"request_id\":\"cut\""), std::string::npos);
  EXPECT_FALSE(json::parse(read_whole_file(trace))["traceEvents"].empty());
}

TEST(ServeFailure, AStepThatHangsEndsTheProcessToo) {
  ServedProgram server({"--step-timeout", "0.1", "--max-num-batched-tokens", "4096"});
  const HttpAnswer answer = server.ask("POST", kCompletions, body_of(4000, false));
  const auto failed_at = steady_clock::now();
  EXPECT_EQ(answer.status, 500) << answer.body;
  EXPECT_NE(answer.body.find("the engine hangs: "), std::string::npos) << answer.body;
  const ProgramResult result = server.join();
  EXPECT_LT(steady_clock::now() - failed_at, kEndsWithin);
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("error: the engine hangs: "), std::string::npos) << result.err;
}

}  // namespace
}  // namespace nanocp::tests
