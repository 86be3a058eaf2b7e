// `nanocp serve` as its clients see it, with the bundled model.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "served_program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

constexpr const char* kCompletions = "/v1/completions";

json completion(const std::string& prompt, int max_tokens) {
  return {{"prompt", prompt}, {"max_tokens", max_tokens}, {"temperature", 0}, {"ignore_eos", true}};
}

std::string error_of(const HttpAnswer& answer) {
  const json body = json::parse(answer.body, nullptr, false);
  return body.is_object() && body.contains("error") ? body["error"]["message"].get<std::string>()
                                                    : "no error object: " + answer.body;
}

// The text of a stream of completions; checks that it is whole.
std::string streamed_text(const std::string& events) {
  std::string text;
  bool is_done = false;
  for (size_t at = 0; at < events.size();) {
    const size_t end = events.find("\n\n", at);
    if (end == std::string::npos) break;
    const std::string event = events.substr(at, end - at);
    at = end + 2;
    EXPECT_EQ(event.substr(0, 6), "data: ") << event;
    is_done = event == "data: [DONE]";
    if (is_done) break;
    const json chunk = json::parse(event.substr(6));
    if (!chunk["choices"].empty()) text += chunk["choices"][0]["text"].get<std::string>();
  }
  EXPECT_TRUE(is_done) << events;
  return text;
}

double kv_cache_usage(const ServedProgram& server) {
  return json::parse(server.ask("GET", "/load").body)["kv_cache_usage"].get<double>();
}

template <typename Condition>
bool holds_soon(Condition condition) {
  for (int i = 0; i < 600 && !condition(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  return condition();
}

TEST(Serve, TellsWhatItIs) {
  ServedProgram server({"--instances", "2", "--served-model-name", "a", "b/c"});
  for (const char* line : {"model      a, b/c (Qwen3Moe", "instances  2 on CPU", "KV cache",
                           "longest", "policy     dcp"}) {
    EXPECT_NE(server.summary().find(line), std::string::npos) << server.summary();
  }
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
  EXPECT_EQ(server.ask("GET", "/ready").status, 200);
  EXPECT_EQ(server.ask("GET", "/version").status, 200);
  const json models = json::parse(server.ask("GET", "/v1/models").body);
  ASSERT_EQ(models["data"].size(), 2U);
  EXPECT_GT(models["data"][0]["max_model_len"].get<int>(), 0);
  EXPECT_EQ(json::parse(server.ask("GET", "/v1/models/b%2Fc").body)["id"], "b/c");
  EXPECT_EQ(server.ask("GET", "/v1/models/d").status, 404);
  EXPECT_EQ(server.ask("GET", "/nothing").status, 404);
  const HttpAnswer wrong_method = server.ask("GET", kCompletions);
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_NE(wrong_method.head.find("Allow: POST"), std::string::npos);
  const HttpAnswer named = server.ask("GET", "/health", "", "x-request-id: mine\r\n");
  EXPECT_NE(named.head.find("x-request-id: mine"), std::string::npos);
  const ProgramResult result = server.stop();
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

TEST(Serve, AnswersAsGenerateDoes) {
  const ProgramResult alone = run_program(
      {"generate", "--prompt", "The state of", "--max-tokens", "12", "--ignore-eos", "--json"});
  ASSERT_EQ(alone.exit_code, 0) << alone.err;
  const json expected = json::parse(alone.out);
  ServedProgram server({"--instances", "3", "--policy", "uniform_cp"});
  json body = completion("The state of", 12);
  const HttpAnswer whole = server.ask("POST", kCompletions, body.dump());
  ASSERT_EQ(whole.status, 200) << whole.body;
  const json answer = json::parse(whole.body);
  EXPECT_EQ(answer["choices"][0]["text"], expected["requests"][0]["text"]) << whole.body;
  EXPECT_EQ(answer["usage"]["completion_tokens"], 12);
  body["stream"] = true;
  const HttpAnswer stream = server.ask("POST", kCompletions, body.dump());
  EXPECT_NE(stream.head.find("text/event-stream"), std::string::npos);
  EXPECT_EQ(streamed_text(stream.body), answer["choices"][0]["text"]);
  const HttpAnswer chat = server.ask(
      "POST", "/v1/chat/completions",
      R"({"messages": [{"role": "user", "content": "Good day"}], "max_completion_tokens": 4})");
  EXPECT_EQ(chat.status, 200) << chat.body;
}

TEST(Serve, WritesJsonWhenASchemaSaysSo) {
  ServedProgram server;
  const json body = {{"messages", {{{"role", "user"}, {"content", "Name a colour"}}}},
                     {"max_tokens", 100},  // white space is bounded, and this model likes it
                     {"response_format",
                      {{"type", "json_schema"},
                       {"json_schema",
                        {{"name", "colour"},
                         {"schema",
                          {{"type", "object"},
                           {"properties", {{"colour", {{"enum", {"red", "blue"}}}}}},
                           {"required", {"colour"}},
                           {"additionalProperties", false}}}}}}}};
  const HttpAnswer answer = server.ask("POST", "/v1/chat/completions", body.dump());
  ASSERT_EQ(answer.status, 200) << answer.body;
  const json choice = json::parse(answer.body)["choices"][0];
  const json content = json::parse(choice["message"]["content"].get<std::string>(), nullptr, false);
  ASSERT_TRUE(content.is_object()) << answer.body;
  EXPECT_TRUE(content["colour"] == "red" || content["colour"] == "blue") << answer.body;
  EXPECT_EQ(choice["finish_reason"], "stop");
}

TEST(Serve, ManyStreamsAtOnceAreAnsweredAsEachAlone) {
  ServedProgram server({"--instances", "2"});
  constexpr int kStreams = 16;
  std::vector<std::string> expected;
  std::vector<http::TestClient> clients;
  for (int i = 0; i < kStreams; ++i) {
    json body = completion("Number " + std::to_string(i), 24);
    const HttpAnswer alone = server.ask("POST", kCompletions, body.dump());
    ASSERT_EQ(alone.status, 200) << alone.body;
    expected.push_back(json::parse(alone.body)["choices"][0]["text"]);
  }
  for (int i = 0; i < kStreams; ++i) {
    json body = completion("Number " + std::to_string(i), 24);
    body["stream"] = true;
    clients.push_back(server.client());
    clients.back().send(ServedProgram::request_text("POST", kCompletions, body.dump()));
  }
  for (int i = 0; i < kStreams; ++i) {
    const HttpAnswer answer = ServedProgram::parse(clients[static_cast<size_t>(i)].read_all(60.0));
    EXPECT_EQ(streamed_text(answer.body), expected[static_cast<size_t>(i)]) << i;
  }
  EXPECT_TRUE(holds_soon([&] { return kv_cache_usage(server) == 0.0; }));
}

TEST(Serve, ClientsThatLeaveFreeTheirKv) {
  ServedProgram server;
  for (const bool streams : {false, true}) {
    json body = completion("Long", 8000);
    body["stream"] = streams;
    http::TestClient client = server.client();
    client.send(ServedProgram::request_text("POST", kCompletions, body.dump()));
    ASSERT_TRUE(holds_soon([&] { return kv_cache_usage(server) > 0.0; })) << streams;
    client.close();
    EXPECT_TRUE(holds_soon([&] { return kv_cache_usage(server) == 0.0; })) << streams;
    EXPECT_EQ(json::parse(server.ask("GET", "/load").body)["server_load"], 0);
  }
}

TEST(Serve, RefusesBadRequestsWithTheReason) {
  ServedProgram server({"--max-model-len", "100", "--max-body-size", "10KiB"});
  const auto status_of = [&](const std::string& body) {
    return server.ask("POST", kCompletions, body).status;
  };
  EXPECT_EQ(status_of("{"), 400);
  EXPECT_EQ(status_of("[]"), 400);
  EXPECT_EQ(status_of(R"({"prompt": 7})"), 400);
  EXPECT_EQ(status_of(R"({"prompt": "x", "temperature": -1})"), 400);
  EXPECT_EQ(status_of(R"({"prompt": "x", "model": "other"})"), 404);
  EXPECT_EQ(status_of(std::string(20'000, ' ')), 413);
  const HttpAnswer too_long = server.ask("POST", kCompletions, completion("x", 101).dump());
  EXPECT_EQ(too_long.status, 400);
  EXPECT_NE(error_of(too_long).find("100"), std::string::npos) << too_long.body;
  http::TestClient form = server.client();
  form.send(
      "POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n"
      "Content-Type: application/x-www-form-urlencoded\r\n\r\n{}");
  EXPECT_EQ(ServedProgram::parse(form.read_answer()).status, 415);
  EXPECT_EQ(server.ask("POST", kCompletions, "{}", "Content-Encoding: gzip\r\n").status, 415);
}

TEST(Serve, KeysCoverAllButHealth) {
  ServedProgram server({"--api-key", "first", "--api-key", "second"});
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
  const HttpAnswer none = server.ask("GET", "/v1/models");
  EXPECT_EQ(none.status, 401);
  EXPECT_NE(none.head.find("WWW-Authenticate: Bearer"), std::string::npos);
  EXPECT_EQ(server.ask("GET", "/nothing").status, 401);
  EXPECT_EQ(server.ask("POST", kCompletions, completion("x", 1).dump()).status, 401);
  const auto with_key = [&](const std::string& key) {
    return server.ask("GET", "/v1/models", "", "Authorization: Bearer " + key + "\r\n").status;
  };
  EXPECT_EQ(with_key("first"), 200);
  EXPECT_EQ(with_key("second"), 200);
  EXPECT_EQ(with_key("firs"), 401);
  EXPECT_EQ(with_key("firstsecond"), 401);
}

TEST(Serve, OriginsOfPagesAreAllowedOnlyWhenAsked) {
  const std::string origin = "Origin: https://a.example\r\n";
  ServedProgram closed;
  EXPECT_EQ(closed.ask("GET", "/health", "", origin).head.find("Access-Control"),
            std::string::npos);
  ServedProgram open({"--allowed-origins", "https://a.example", "--api-key", "k"});
  const HttpAnswer preflight = open.ask("OPTIONS", kCompletions, "", origin);
  EXPECT_EQ(preflight.status, 204);
  EXPECT_NE(preflight.head.find("Access-Control-Allow-Origin: https://a.example"),
            std::string::npos);
  EXPECT_EQ(open.ask("GET", "/health", "", "Origin: https://b.example\r\n")
                .head.find("Access-Control-Allow-Origin"),
            std::string::npos);
}

TEST(Serve, AFullQueueSaysTryAgain) {
  ServedProgram server({"--max-num-seqs", "1", "--max-waiting", "1"});
  json body = completion("Long", 8000);
  body["stream"] = true;
  std::vector<http::TestClient> clients;
  HttpAnswer refused;
  for (int i = 0; i < 20 && refused.status == 0; ++i) {
    clients.push_back(server.client());
    clients.back().send(ServedProgram::request_text("POST", kCompletions, body.dump()));
    const std::string& head = clients.back().read_until("\r\n\r\n");
    if (head.find(" 200 ") == std::string::npos) {
      refused = ServedProgram::parse(clients.back().read_all());
    }
  }
  EXPECT_EQ(refused.status, 429);
  EXPECT_NE(refused.head.find("Retry-After: "), std::string::npos) << refused.head;
  EXPECT_NE(error_of(refused).find("queue is full"), std::string::npos) << refused.body;
}

TEST(Serve, DrainsOnASignalAndEndsAtTheSecond) {
  json body = completion("Long", 300);
  body["stream"] = true;
  {
    ServedProgram server;
    http::TestClient client = server.client();
    client.send(ServedProgram::request_text("POST", kCompletions, body.dump()));
    client.read_until("data: ");
    server.send_signal(SIGTERM);
    streamed_text(ServedProgram::parse(client.read_all(60.0)).body);  // checks that it is whole
    const ProgramResult result = server.join();
    EXPECT_EQ(result.exit_code, 0) << result.err;
    EXPECT_NE(result.err.find("shutting down"), std::string::npos) << result.err;
  }
  body["max_tokens"] = 8000;
  {
    ServedProgram server({"--shutdown-timeout", "0.2"});
    http::TestClient client = server.client();
    client.send(ServedProgram::request_text("POST", kCompletions, body.dump()));
    client.read_until("data: ");
    server.send_signal(SIGINT);
    const std::string text = client.read_all(60.0);
    EXPECT_NE(text.find("shutting down"), std::string::npos) << text.substr(text.size() - 300);
    EXPECT_EQ(server.join().exit_code, 0);
  }
  ServedProgram server({"--shutdown-timeout", "600"});
  http::TestClient client = server.client();
  client.send(ServedProgram::request_text("POST", kCompletions, body.dump()));
  client.read_until("data: ");
  server.send_signal(SIGTERM);
  ASSERT_TRUE(holds_soon([&] { return server.ask("GET", "/ready").status == 503; }));
  EXPECT_EQ(server.ask("POST", kCompletions, completion("x", 1).dump()).status, 503);
  EXPECT_EQ(server.ask("GET", "/health").status, 200);
  server.send_signal(SIGTERM);
  EXPECT_EQ(server.join().exit_code, 128 + SIGTERM);
}

TEST(Serve, TakesFlagsFromAFile) {
  const TempFolder folder;
  const std::string file = folder.write("flags.toml",
                                        "max-model-len = 64\nserved-model-name = [\"x\", \"y\"]\n"
                                        "instances = 2\npolicy = \"bound\"\n");
  ServedProgram server({"--config", file, "--policy", "uniform_cp"});
  for (const char* line :
       {"model      x, y", "instances  2 on", "longest    64 tokens", "policy     uniform_cp"}) {
    EXPECT_NE(server.summary().find(line), std::string::npos) << server.summary();
  }
}

TEST(Serve, LongestRequestFollowsTheLimitOfHolders) {
  const TempFolder folder;
  const std::string file = folder.write("flags.toml", "max-cp-degree = 2\n");
  ServedProgram server({"--config", file, "--instances", "4", "--num-kv-blocks", "8",
                        "--block-size", "16", "--min-tokens-per-shard", "16"});
  for (const char* line : {"KV cache   512 tokens, 128 on each", "longest    257 tokens",
                           "policy     dcp, a request on 2 instances at most"}) {
    EXPECT_NE(server.summary().find(line), std::string::npos) << server.summary();
  }
  const HttpAnswer longest = server.ask("POST", kCompletions, completion("x", 256).dump());
  EXPECT_EQ(longest.status, 200) << longest.body;
  const HttpAnswer longer = server.ask("POST", kCompletions, completion("x", 257).dump());
  EXPECT_EQ(longer.status, 400);
  EXPECT_NE(error_of(longer).find("257"), std::string::npos) << longer.body;
  // None had three.
  const std::string metrics = server.ask("GET", "/metrics").body;
  EXPECT_NE(metrics.find("engine=\"0\",le=\"2\"} 1\nnanocp:request_degree_bucket"),
            std::string::npos)
      << metrics;
}

TEST(Serve, SaysWhyItCannotStart) {
  const TempFolder folder;
  const auto expect_error = [](std::vector<std::string> flags, const std::string& message) {
    flags.insert(flags.begin(), {"serve", "--port", "0"});
    const ProgramResult result = run_program(flags);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  };
  expect_error({"no-such-dir"}, "no-such-dir: no such directory");
  expect_error({"--port", "70000"}, "--port");
  expect_error({"--api-key", ""}, "an API key is empty");
  expect_error({"--chat-template", "nothing.jinja"}, "nothing.jinja");
  expect_error({"--tool-call-parser", "nobody"}, "nobody");
  expect_error({"--config", "nothing.toml"}, "nothing.toml");
  expect_error({"--config", folder.write("a.toml", "bogus = 1\n")}, "\"bogus\" is not a flag");
  expect_error({"--config", folder.write("b.toml", "instances = 0\n")}, "\"instances\"");
  ServedProgram server;
  const ProgramResult second = run_program({"serve", "--port", std::to_string(server.port())});
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.err.find("Address already in use"), std::string::npos) << second.err;
}

}  // namespace
}  // namespace nanocp::tests
