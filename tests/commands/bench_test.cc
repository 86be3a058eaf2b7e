// `nanocp bench decode` as a user runs it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

const std::vector<std::string> kModel = {"bench",         "decode",
                                         "--config",      "tests/fixtures/qwen3_moe/config.json",
                                         "--load-format", "dummy"};

std::vector<std::string> with(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = kModel;
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(BenchDecode, RunsEveryPolicyOnTheSameContexts) {
  const TempFolder folder;
  const std::string file = (folder.path() / "out.json").string();
  const ProgramResult result = run_program(with(
      {"--instances", "2", "--context", "40x3,700", "--num-steps", "6", "--warmup", "2",
       "--policies", "bound,uniform_cp,dcp", "--min-tokens-per-shard", "256", "--json", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(read_whole_file(file), nullptr, false);
  ASSERT_EQ(document["runs"].size(), 3U) << document.dump();
  for (const json& run : document["runs"]) {
    EXPECT_EQ(run["num_requests"], 4);
    EXPECT_GT(run["tpot_us"]["mean"].get<double>(), 0.0);
    EXPECT_LE(run["tpot_us"]["p50"].get<double>(), run["tpot_us"]["p99"].get<double>());
    int64_t rows = 0;
    int64_t tokens = 0;
    for (const json& instance : run["instances"]) {
      rows += instance["num_rows"].get<int64_t>();
      tokens += instance["num_kv_tokens"].get<int64_t>();
    }
    EXPECT_EQ(rows, 4);
    EXPECT_GT(tokens, 3 * 40 + 700);
    EXPECT_LT(tokens, 3 * 40 + 700 + 4 * 80);
  }
  EXPECT_EQ(document["runs"][0]["num_requests_by_degree"], json({0, 4, 0}));
  EXPECT_EQ(document["runs"][1]["num_requests_by_degree"], json({0, 0, 4}));
  EXPECT_EQ(document["runs"][2]["num_requests_by_degree"], json({0, 3, 1}));
}

// Shapes of the fixture: see its config.json.
TEST(BenchDecode, CountsTheBytesOfAStep) {
  const TempFolder folder;
  const std::string file = (folder.path() / "out.json").string();
  const ProgramResult result = run_program(with(
      {"--instances", "2", "--context", "64x2", "--num-steps", "1", "--warmup", "0", "--block-size",
       "8", "--policies", "bound,uniform_cp", "--read-bandwidth", "10", "--json", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("% of bandwidth"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("host gap"), std::string::npos) << result.out;
  const json config =
      json::parse(read_whole_file("tests/fixtures/qwen3_moe/config.json"), nullptr, false);
  const auto number = [&](const char* name) { return config[name].get<double>(); };
  const double layers = number("num_hidden_layers");
  const double token_bytes = 4 * 2 * number("num_key_value_heads") * number("head_dim") * layers;
  const double row_bytes = 4 * number("hidden_size") * layers;
  const json document = json::parse(read_whole_file(file), nullptr, false);
  for (const json& run : document["runs"]) {
    double sum_kv = 0.0;
    int64_t num_tokens = 0;
    for (const json& instance : run["instances"]) {
      const json& bytes = instance["bytes"];
      sum_kv += bytes["kv"].get<double>();
      num_tokens += instance["num_kv_tokens"].get<int64_t>();
      EXPECT_GT(bytes["weights"].get<double>(), 0.0);
      EXPECT_GT(instance["read_gb_per_s"].get<double>(), 0.0);
      // One row each, to the only other instance at most.
      EXPECT_GT(bytes["dispatch"].get<double>(), 0.5 * row_bytes);
      EXPECT_LT(bytes["combine"].get<double>(), 1.001 * row_bytes);
      const bool is_split = run["policy"] == "uniform_cp";
      const double query = 4 * number("num_attention_heads") * number("head_dim") * layers;
      if (is_split) {
        EXPECT_GE(bytes["query"].get<double>(), query);
        EXPECT_LE(bytes["query"].get<double>(), query + token_bytes);
        EXPECT_EQ(bytes["partial"].get<double>(),
                  query + 4 * number("num_attention_heads") * layers);
      } else {
        EXPECT_EQ(bytes["query"].get<double>(), 0.0);
        EXPECT_EQ(bytes["partial"].get<double>(), 0.0);
      }
    }
    EXPECT_EQ(sum_kv, static_cast<double>(num_tokens) * token_bytes);
  }
}

TEST(BenchDecode, DrawsContextsFromNamedDistributions) {
  const TempFolder folder;
  const auto tokens = [&](const std::string& contexts, const std::string& seed) {
    const std::string file = (folder.path() / "out.json").string();
    const ProgramResult result =
        run_program(with({"--context", contexts, "--context-seed", seed, "--num-steps", "1",
                          "--warmup", "0", "--json", file}));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const json document = json::parse(read_whole_file(file), nullptr, false);
    return document["runs"][0]["instances"][0]["num_kv_tokens"].get<int64_t>();
  };
  const int64_t drawn = tokens("uniform(100,300)x40", "1");
  EXPECT_GT(drawn, 40 * 150);
  EXPECT_LT(drawn, 40 * 250);
  EXPECT_EQ(tokens("uniform(100,300)x40", "1"), drawn);
  EXPECT_NE(tokens("uniform(100,300)x40", "2"), drawn);
  // Medians of 200; the mean of the log-normal is a little higher.
  for (const char* name : {"loguniform(100,400)x60", "lognormal(100,400)x60"}) {
    EXPECT_GT(tokens(name, "1"), 60 * 160) << name;
    EXPECT_LT(tokens(name, "1"), 60 * 290) << name;
  }
  EXPECT_GT(tokens("1kx2,lognormal(10,20)x3", "1"), 2 * 1000 - 2);
}

TEST(BenchDecode, PerInstanceMultipliesTheRequests) {
  const ProgramResult result =
      run_program(with({"--instances", "3", "--per-instance", "--context", "20x2", "--num-steps",
                        "2", "--warmup", "0", "--policy", "bound", "--router", "least_requests"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("6 requests on 3 x CPU"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("instance 2: 2 rows"), std::string::npos) << result.out;
}

TEST(BenchDecode, ContextsFromAFileAndPhasesPerInstance) {
  const TempFolder folder;
  const std::string contexts =
      folder.write("c.csv", "input_tokens,output_tokens\n30,5\n\n50,7\r\n");
  const std::string out = (folder.path() / "out.json").string();
  const std::string trace = (folder.path() / "trace.json").string();
  const ProgramResult result =
      run_program(with({"--instances", "2", "--context-file", contexts, "--num-steps", "3",
                        "--json", out, "--trace", trace}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json run = json::parse(read_whole_file(out), nullptr, false)["runs"][0];
  EXPECT_EQ(run["num_requests"], 2);
  EXPECT_GE(run["straggler_ratio"].get<double>(), 1.0);
  EXPECT_LE(run["straggler_ratio"].get<double>(), 2.0);
  double attention_us = 0.0;
  for (const json& instance : run["instances"]) {
    attention_us += instance["phase_us"]["attention"].get<double>();
  }
  EXPECT_GT(attention_us, 0.0);
  const json events = json::parse(read_whole_file(trace), nullptr, false)["traceEvents"];
  ASSERT_GT(events.size(), 10U);
  int num_complete = 0;
  for (const json& event : events) num_complete += event["ph"] == "X" ? 1 : 0;
  EXPECT_EQ(num_complete, static_cast<int>(events.size()) - 2);  // a name for each instance
}

TEST(BenchDecode, ErrorsAreOneLine) {
  const TempFolder folder;
  const std::string bad_line = folder.write("bad.csv", "12\n-3\n");
  const std::string empty = folder.write("empty.csv", "tokens\n");
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--context", "40x"}, "'' is not a number from 1"},
      {{"--context", "x3"}, "LENGTHxREQUESTS"},
      {{"--context", "0x3"}, "'0' must be above 0"},
      {{"--context", "uniform(10)x3"}, "takes two lengths"},
      {{"--context", "uniform(20,10)"}, "the first limit is above the second"},
      {{"--context", "zipf(1,2)"}, "is none of uniform"},
      {{"--context", "4096m"}, "at most 1e9 tokens"},
      {{"--context", "99999999999"}, "at most 1e9 tokens"},
      {{"--context", "40x3,"}, "'' is not a number"},
      {{"--context", "40x9999999"}, "is not a number from 1"},
      {{"--context", "4000x4", "--num-kv-blocks", "300"}, "do not all fit at once"},
      {{"--context-file", "no-such-file"}, "no-such-file: cannot be read"},
      {{"--context-file", bad_line}, "bad.csv:2: '-3' is not a context length"},
      {{"--context-file", empty}, "no context length in it"},
      {{"--policies", "bound,nonsense", "--context", "40"}, "nonsense"},
      {{"--json", "/no/such/folder/x.json", "--context", "8", "--num-steps", "1"},
       "/no/such/folder/x.json"},
  };
  for (const auto& [arguments, words] : cases) {
    const ProgramResult result = run_program(with(arguments));
    EXPECT_EQ(result.exit_code, 1) << words;
    EXPECT_NE(result.err.find(words), std::string::npos) << words << "\n" << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

TEST(Device, CudaWithoutCudaSaysWhatToDo) {
  const ProgramResult result =
      run_program(with({"--device", "cuda", "--context", "8", "--num-steps", "1"}));
  EXPECT_EQ(result.exit_code, 1);
  const bool built_without = result.err.find("built without CUDA") != std::string::npos;
  const bool no_gpu = result.err.find("NVIDIA driver") != std::string::npos;
  EXPECT_TRUE(built_without || no_gpu) << result.err;
}

TEST(BenchLoad, MeasuresEachPolicyOnTheSameArrivals) {
  const TempFolder folder;
  const std::string trace = folder.write(
      "trace.csv", "arrival_s,input_tokens,output_tokens\n0,40,4\n0.1,900,6\n0.2,30,5\n0.4,20,3\n");
  const std::string file = (folder.path() / "out.json").string();
  const ProgramResult result = run_program({"bench",
                                            "load",
                                            "--config",
                                            "tests/fixtures/qwen3_moe/config.json",
                                            "--load-format",
                                            "dummy",
                                            "--instances",
                                            "2",
                                            "--min-tokens-per-shard",
                                            "256",
                                            "--trace",
                                            trace,
                                            "--arrivals",
                                            "trace",
                                            "--rate",
                                            "10",
                                            "--duration",
                                            "1",
                                            "--slo",
                                            "tpot=9s,queue=20s",
                                            "--policies",
                                            "bound/least_requests,uniform_cp/2,dcp",
                                            "--json",
                                            file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(read_whole_file(file), nullptr, false);
  ASSERT_EQ(document["runs"].size(), 3U) << document.dump();
  const int64_t num_requests = document["runs"][0]["all"]["num_requests"];
  EXPECT_GE(num_requests, 4);
  for (const json& run : document["runs"]) {
    EXPECT_TRUE(run["meets_objectives"]) << run.dump();
    EXPECT_EQ(run["all"]["num_requests"], num_requests);
    EXPECT_EQ(run["all"]["num_unfinished"], 0);
    EXPECT_EQ(run["num_tokens"], document["runs"][0]["num_tokens"]);
    EXPECT_GT(run["all"]["tpot_us"]["mean"].get<double>(), 0.0);
  }
  const auto by_degree = [&](size_t run) {
    json counts = document["runs"][run]["all"]["num_requests_by_degree"];
    counts.push_back(0);
    return counts;
  };
  EXPECT_EQ(by_degree(0)[1], num_requests);  // bound: all on one instance
  EXPECT_EQ(by_degree(1)[2], num_requests);
  EXPECT_GT(by_degree(2)[1].get<int64_t>(), 0);  // dcp: short ones stay local, long ones do not
  EXPECT_GT(by_degree(2)[2].get<int64_t>(), 0);
}

TEST(BenchLoad, APolicyThatMissesIsNotRunAtHigherRates) {
  const TempFolder folder;
  const std::string file = (folder.path() / "out.json").string();
  const ProgramResult result =
      run_program({"bench", "load", "--config", "tests/fixtures/qwen3_moe/config.json",
                   "--load-format", "dummy", "--workload", "20 -> 3", "--rate", "5,10",
                   "--duration", "1", "--slo", "tpot=1us", "--policies", "dcp", "--json", file});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json document = json::parse(read_whole_file(file), nullptr, false);
  ASSERT_EQ(document["runs"].size(), 1U) << document.dump();
  EXPECT_FALSE(document["runs"][0]["meets_objectives"]);
  EXPECT_NE(result.out.find("missed: TPOT"), std::string::npos) << result.out;
}

TEST(BenchLoad, BadOptionsAreRefused) {
  const std::vector<std::string> start = {"bench",         "load",
                                          "--config",      "tests/fixtures/qwen3_moe/config.json",
                                          "--load-format", "dummy"};
  const auto refused = [&](std::vector<std::string> more, const std::string& message) {
    more.insert(more.begin(), start.begin(), start.end());
    const ProgramResult result = run_program(more);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_NE(result.err.find(message), std::string::npos) << result.err;
  };
  refused({"--policies", "oracle"}, "policy oracle: its perfect split exists in");
  refused({"--policies", "bound/nobody"}, "nobody");
  refused({"--workload", "7"}, "7");
  refused({"--trace", "no/such.csv"}, "no/such.csv");
  refused({"--arrivals", "trace"}, "--arrivals trace needs --trace FILE");
}

}  // namespace
}  // namespace nanocp::tests
