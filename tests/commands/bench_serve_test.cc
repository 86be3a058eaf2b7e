// `nanocp bench serve` and `bench compare` as a user runs them, against a server with a script.
#include <gtest/gtest.h>
#include <signal.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "http_client/test_server.h"
#include "program.h"

namespace nanocp::tests {
namespace {

using http_client::TestServer;
using nlohmann::json;

// A server of one model that knows 500 token ids, or none; answers as long as it is asked to.
class ModelServer {
 public:
  explicit ModelServer(int gap_ms = 1, bool takes_ids = true)
      : gap_ms_(gap_ms),
        takes_ids_(takes_ids),
        server_([this](TestServer::Call& call) { answer(call); }) {}

  std::string url() const { return server_.url(); }
  // Bodies of streamed requests.
  std::vector<json> bodies() const {
    const std::lock_guard lock(mutex_);
    return bodies_;
  }

 private:
  static json error_body(const std::string& message) { return {{"error", {{"message", message}}}}; }

  static int64_t num_prompt_tokens(const json& body) {
    if (body.contains("messages")) {
      return 10 + static_cast<int64_t>(body["messages"].dump().size()) / 4;
    }
    const json& prompt = body["prompt"];
    if (prompt.is_array()) return static_cast<int64_t>(prompt.size());
    return static_cast<int64_t>(prompt.get<std::string>().size()) / 4;
  }

  void answer(TestServer::Call& call) {
    if (call.target() == "/v1/models") {
      call.answer(200, "application/json", R"({"data": [{"id": "tiny"}]})");
      return;
    }
    const json body = json::parse(call.body);
    if (body["model"] != "tiny") {
      call.answer(404, "application/json", error_body("no such model").dump());
      return;
    }
    if (body.contains("prompt") && body["prompt"].is_array()) {
      for (const json& id : body["prompt"]) {
        if (takes_ids_ && id < 500) continue;
        call.answer(400, "application/json", error_body("id is out of vocabulary").dump());
        return;
      }
    }
    const json usage = {{"prompt_tokens", num_prompt_tokens(body)},
                        {"completion_tokens", body["max_tokens"]}};
    if (!body["stream"].get<bool>()) {
      call.answer(200, "application/json", json({{"usage", usage}}).dump());
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      bodies_.push_back(body);
    }
    stream(call, body, usage);
  }

  void stream(TestServer::Call& call, const json& body, const json& usage) const {
    const bool is_chat = call.target() == "/v1/chat/completions";
    const json choice = is_chat ? json{{"delta", {{"content", "x"}}}} : json{{"text", "x"}};
    call.begin_stream();
    for (int i = 0; i < body["max_tokens"]; ++i) {
      call.wait_ms(gap_ms_);
      call.send_chunk("data: " + json({{"choices", {choice}}}).dump() + "\n\n");
    }
    call.send_chunk("data: " + json({{"choices", json::array()}, {"usage", usage}}).dump() +
                    "\n\ndata: [DONE]\n\n");
    call.end_stream();
  }

  int gap_ms_;
  bool takes_ids_;
  mutable std::mutex mutex_;
  std::vector<json> bodies_;
  TestServer server_;  // last: its threads use the others
};

ProgramResult bench(const std::string& url, const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"bench", "serve", "--base-url", url};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return run_program(arguments);
}

json read_json(const std::string& file) {
  return json::parse(read_whole_file(file));
}

TEST(BenchServe, SweepsRatesAndWritesReports) {
  const ModelServer server(10);
  const TempFolder folder;
  const std::string file = folder.path() / "out.json";
  const std::string page_file = folder.path() / "out.html";
  const ProgramResult result =
      bench(server.url(), {"--rate", "40,80", "--num-requests", "20", "--workload", "30 -> 5",
                           "--slo", "ttft=9s,tpot=1us", "--json", file, "--html", page_file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "") << "no progress bar where stderr is no terminal";
  EXPECT_NE(result.out.find("tiny at "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("random token ids 100:400"), std::string::npos)
      << "30000 is not in the vocabulary: " << result.out;
  const json document = read_json(file);
  EXPECT_EQ(document["benchmark"], "serve");
  EXPECT_EQ(document["schema"], 1);
  EXPECT_EQ(document["slo"]["e2e_us"], nullptr);
  ASSERT_EQ(document["runs"].size(), 2U);
  for (const json& run : document["runs"]) {
    EXPECT_EQ(run["all"]["num_finished"], 20) << run["errors"];
    EXPECT_EQ(run["all"]["num_output_tokens"], 100);
    EXPECT_EQ(run["all"]["num_prompt_tokens"], 600);
    EXPECT_EQ(run["all"]["num_good"], 0) << "TPOT of a microsecond is too much to ask";
    EXPECT_EQ(run["requests"]["start_us"].size(), 20U);
    EXPECT_EQ(run["num_without_usage"], 0);
    EXPECT_EQ(run["num_short"], 0);
    EXPECT_GT(run["all"]["tpot_us"]["p50"], 2000.0);
    EXPECT_GE(run["all"]["e2e_us"]["p50"], run["all"]["ttft_us"]["p50"]);
    EXPECT_GT(run["output_tokens_per_s"], run["requests_per_s"]);
  }
  const auto bodies = server.bodies();
  ASSERT_EQ(bodies.size(), 40U);
  std::set<json> prompts;
  for (const json& body : bodies) {
    EXPECT_EQ(body["prompt"].size(), 30U);
    EXPECT_EQ(body["ignore_eos"], true);
    prompts.insert(body["prompt"]);
  }
  EXPECT_EQ(prompts.size(), 40U) << "no run has the prompts of another";
  const std::string page = read_whole_file(page_file);
  EXPECT_EQ(page.rfind("<!DOCTYPE html>", 0), 0U);
  EXPECT_EQ(page.find("{{"), std::string::npos) << "something was not filled in";
  for (const char* title : {"TTFT", "Goodput", "Requests under way", "Distributions"}) {
    EXPECT_NE(page.find(std::string("<h3>") + title + "</h3>"), std::string::npos) << title;
  }
}

TEST(BenchServe, ChatsAreOfWordsThatFitTheTokenizer) {
  const ModelServer server;
  const TempFolder folder;
  const std::string file = folder.path() / "out.json";
  const ProgramResult result =
      bench(server.url() + "/v1", {"--endpoint", "chat", "--concurrency", "4", "--num-requests",
                                   "12", "--workload", "400 -> 3", "--json", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("random words, 1."), std::string::npos) << result.out;
  EXPECT_EQ(read_json(file)["runs"][0]["all"]["num_finished"], 12);
  for (const json& body : server.bodies()) {
    const size_t num_tokens = 10 + body["messages"].dump().size() / 4;
    EXPECT_NEAR(static_cast<double>(num_tokens), 400.0, 40.0);
  }
}

TEST(BenchServe, WordsGoWhereIdsAreNotTaken) {
  const ModelServer server(1, false);
  const std::vector<std::string> load = {"--num-requests", "3", "--workload", "40 -> 2"};
  const ProgramResult result = bench(server.url(), load);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("random words"), std::string::npos) << result.out;
  const ProgramResult refused = bench(server.url(), {"--prompts", "ids"});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("id is out of vocabulary"), std::string::npos) << refused.err;
}

TEST(BenchServe, TracesAndPromptFilesAreReplayed) {
  const ModelServer server;
  const TempFolder folder;
  const std::string trace = folder.write(
      "trace.csv", "arrival_s,input_tokens,output_tokens\n0,10,2\n0.1,5000,3\n0.2,20,4\n");
  const std::string prompts =
      folder.write("prompts.jsonl", "{\"prompt\": \"hello\", \"max_tokens\": 2}\n");
  const std::string file = folder.path() / "out.json";
  ProgramResult result =
      bench(server.url(), {"--trace", trace, "--arrivals", "trace", "--num-requests", "3",
                           "--max-prompt-tokens", "50", "--json", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json run = read_json(file)["runs"][0];
  EXPECT_NEAR(run["rate_per_s"].get<double>(), 10.0, 1e-9);
  EXPECT_EQ(run["requests"]["num_prompt_tokens"], json({10, 50, 20}));
  EXPECT_EQ(run["requests"]["num_output_tokens"], json({2, 3, 4}));
  EXPECT_EQ(run["requests"]["arrival_us"], json({0, 100'000, 200'000}));
  result = bench(server.url(), {"--prompt-file", prompts, "--concurrency", "1", "--num-requests",
                                "2", "--extra-body", "{\"temperature\": 0}", "--json", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(server.bodies().back()["prompt"], "hello");
  EXPECT_EQ(server.bodies().back()["temperature"], 0);
  EXPECT_EQ(read_json(file)["runs"][0]["all"]["num_output_tokens"], 4);
}

TEST(BenchServe, CtrlCEndsWithAPartialReport) {
  const ModelServer server(50);
  const TempFolder folder;
  const std::string file = folder.path() / "out.json";
  std::atomic<bool> is_sent{false};
  const ProgramResult result =
      run_program({"bench", "serve", "--base-url", server.url(), "--rate", "50", "--duration", "60",
                   "--workload", "50% 9 -> 1 ; 50% 9 -> 1000", "--json", file},
                  [&](int pid, const std::string& /*out*/) {
                    if (server.bodies().size() < 20) return false;
                    if (!is_sent.exchange(true)) ::kill(pid, SIGINT);
                    return true;
                  });
  EXPECT_EQ(result.exit_code, 130) << result.err;
  EXPECT_NE(result.out.find("interrupted: "), std::string::npos) << result.out;
  const json run = read_json(file)["runs"][0];
  EXPECT_EQ(run["is_interrupted"], true);
  EXPECT_GT(run["num_cancelled"], 0);
  EXPECT_GT(run["all"]["num_finished"], 0);
}

TEST(BenchServe, FaultsAreToldBeforeTheRun) {
  const ModelServer server;
  const auto error_of = [&](const std::vector<std::string>& more) {
    const ProgramResult result = bench(server.url(), more);
    EXPECT_EQ(result.exit_code, 1) << result.out;
    return result.err;
  };
  EXPECT_NE(error_of({"--model", "large"}).find("no such model"), std::string::npos);
  EXPECT_NE(error_of({"--slo", "queue=1s"}).find("none of tpot=, ttft=, e2e= and percentile="),
            std::string::npos);
  EXPECT_NE(error_of({"--arrivals", "trace"}).find("needs --trace"), std::string::npos);
  EXPECT_NE(error_of({"--rate", "1", "--concurrency", "1"}).find("--concurrency"),
            std::string::npos);
  EXPECT_NE(error_of({"--extra-body", "x"}).find("--extra-body"), std::string::npos);
  EXPECT_NE(error_of({"--token-ids", "9:1"}).find("no range"), std::string::npos);
  EXPECT_NE(error_of({"--warmup", "60"}).find("--warmup"), std::string::npos);
  EXPECT_NE(error_of({"--prompt-file", "no/such.jsonl"}).find("no/such.jsonl"), std::string::npos);
  ProgramResult result = bench("https://example.test", {});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("https is not supported"), std::string::npos) << result.err;
  std::string gone;
  { gone = ModelServer().url(); }
  result = bench(gone, {});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_NE(result.err.find("Connection refused"), std::string::npos) << result.err;
}

// The bundled model behind `nanocp serve`; `use` gets the URL.
ProgramResult with_own_server(const std::function<void(const std::string& url)>& use) {
  bool is_used = false;
  return run_program({"serve", "--port", "0"}, [&](int pid, const std::string& out) {
    std::smatch url;
    if (is_used || !std::regex_search(out, url, std::regex("http://127\\.0\\.0\\.1:[0-9]+"))) {
      return is_used;
    }
    is_used = true;
    use(url.str());
    ::kill(pid, SIGTERM);
    return true;
  });
}

TEST(BenchServe, MeasuresOurOwnServer) {
  const TempFolder folder;
  const std::string file = folder.path() / "out.json";
  const ProgramResult server = with_own_server([&](const std::string& url) {
    for (const auto* endpoint : {"completions", "chat"}) {
      const ProgramResult result =
          bench(url, {"--endpoint", endpoint, "--concurrency", "8", "--num-requests", "24",
                      "--workload", "60 -> 8", "--json", file});
      ASSERT_EQ(result.exit_code, 0) << endpoint << ": " << result.err;
      const json run = read_json(file)["runs"][0];
      EXPECT_EQ(run["all"]["num_finished"], 24) << endpoint << ": " << run["errors"];
      EXPECT_EQ(run["all"]["num_output_tokens"], 24 * 8) << endpoint;
      EXPECT_EQ(run["num_without_usage"], 0) << endpoint;
      EXPECT_GT(run["all"]["itl_us"]["p50"], 0.0) << endpoint;
    }
  });
  EXPECT_EQ(server.exit_code, 0) << server.err;
}

// The same requests, each of whose answers took so many times as long. What servers really take is
// no matter: it depends on the machine.
json slowed_down(json document, double factor) {
  json& columns = document["runs"][0]["requests"];
  for (const char* name : {"first_token_us", "last_token_us", "end_us"}) {
    for (size_t i = 0; i < columns[name].size(); ++i) {
      const auto start_us = columns["start_us"][i].get<double>();
      const double taken_us = columns[name][i].get<double>() - start_us;
      columns[name][i] = static_cast<int64_t>(start_us + factor * taken_us);
    }
  }
  return document;
}

TEST(BenchCompare, TellsADifferenceFromNoise) {
  const ModelServer server;
  const TempFolder folder;
  const std::string a = folder.path() / "a.json";
  const std::string c = folder.path() / "c.json";
  ASSERT_EQ(bench(server.url(), {"--concurrency", "4", "--num-requests", "40", "--workload",
                                 "20 -> 6", "--json", a})
                .exit_code,
            0);
  const std::string b = folder.write("b.json", slowed_down(read_json(a), 6.0).dump());
  const ProgramResult same = run_program({"bench", "compare", a, a});
  ASSERT_EQ(same.exit_code, 0) << same.err;
  EXPECT_EQ(same.out.find("% better"), std::string::npos) << same.out;
  EXPECT_EQ(same.out.find("% worse"), std::string::npos) << same.out;
  const std::string file = folder.path() / "d.json";
  const ProgramResult other = run_program({"bench", "compare", a, b, "--json", file});
  ASSERT_EQ(other.exit_code, 0) << other.err;
  EXPECT_NE(other.out.find("What changes from"), std::string::npos) << other.out;
  const json document = read_json(file);
  EXPECT_EQ(document["loads"][0]["load"], "concurrency 4");
  bool is_found = false;
  for (const json& one : document["loads"][0]["differences"]) {
    if (one["metric"] != "e2e P50") continue;
    is_found = true;
    EXPECT_EQ(one["verdict"], "worse") << one;
    EXPECT_GT(one["low"], 0.0);
  }
  EXPECT_TRUE(is_found) << document;

  ASSERT_EQ(bench(server.url(), {"--concurrency", "2", "--num-requests", "4", "--workload",
                                 "9 -> 2", "--json", c})
                .exit_code,
            0);
  const ProgramResult none = run_program({"bench", "compare", a, c});
  EXPECT_EQ(none.exit_code, 1);
  EXPECT_NE(none.err.find("no rate or concurrency in common"), std::string::npos) << none.err;
  for (const std::string& text :
       {std::string("[]"), std::string("{\"benchmark\":\"serve\",\"schema\":1}")}) {
    const std::string wrong = folder.write("wrong.json", text);
    const ProgramResult bad = run_program({"bench", "compare", wrong, a});
    EXPECT_EQ(bad.exit_code, 1);
    EXPECT_NE(bad.err.find("wrong.json: "), std::string::npos) << bad.err;
  }
}

}  // namespace
}  // namespace nanocp::tests
