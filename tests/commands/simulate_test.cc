// `nanocp simulate` as a user runs it.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

std::vector<std::string> with(const std::vector<std::string>& more,
                              const std::string& duration_s = "20") {
  std::vector<std::string> arguments = {"simulate", "qwen3-30b-a3b", "--instances", "4", "--rate",
                                        "8",        "--duration",    duration_s};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Simulate, ComparesPoliciesAndWritesJson) {
  const TempFolder folder;
  const std::string file = folder.path() / "simulated.json";
  const auto result =
      run_program(with({"--policies", "bound/least_requests,uniform_cp/4,threshold_cp/2,dcp",
                        "--json", file, "--sample-every", "5"}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("uniform_cp/4"), std::string::npos);
  const json document = json::parse(read_whole_file(file));
  ASSERT_EQ(document["runs"].size(), 4U);
  for (const json& one : document["runs"]) {
    EXPECT_GT(one["all"]["num_requests"], 100);
    EXPECT_EQ(one["all"]["num_unfinished"], 0);
    EXPECT_GT(one["all"]["tpot_us"]["mean"], 5'000.0);
    EXPECT_FALSE(one["samples"].empty());
  }
  EXPECT_EQ(document["constants"]["route_fixed_us"]["unit"], "us per layer");
  EXPECT_FALSE(document["constants"]["route_fixed_us"]["source"].get<std::string>().empty());
}

TEST(Simulate, NoRequestHasMoreHoldersThanTheLimit) {
  const TempFolder folder;
  const auto most_holders = [&](const std::vector<std::string>& flags) {
    const std::string file = folder.path() / "limit.json";
    std::vector<std::string> arguments = {"--workload",
                                          "100k -> 50",
                                          "--json",
                                          file,
                                          "--min-tokens-per-shard",
                                          "256",
                                          "--policies",
                                          "dcp,uniform_cp,threshold_cp",
                                          "--cp-threshold",
                                          "1000"};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    const auto result = run_program(with(arguments, "4"));
    EXPECT_EQ(result.exit_code, 0) << result.err;
    size_t most = 0;
    const json document = json::parse(read_whole_file(file));
    for (const json& run : document["runs"]) {
      const auto counts = run["num_requests_by_degree"].get<std::vector<int64_t>>();
      for (size_t degree = 0; degree < counts.size(); ++degree) {
        if (counts[degree] > 0) most = std::max(most, degree);
      }
    }
    return most;
  };
  EXPECT_EQ(most_holders({"--max-cp-degree", "4"}), 4U);
  EXPECT_EQ(most_holders({"--max-cp-degree", "2"}), 2U);
  const auto refused = run_program(with({"--policies", "uniform_cp/4", "--max-cp-degree", "3"}));
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_NE(refused.err.find("degree 4: a request may have a context-parallel degree of 3 at most"),
            std::string::npos)
      << refused.err;
  EXPECT_NE(run_program(with({"--max-cp-degree", "5"})).err.find("max_cp_degree is 5 on 4"),
            std::string::npos);
}

TEST(Simulate, AdversarialLoadsAreCheckedInEveryStep) {
  const TempFolder folder;
  const auto hash_of = [&](const std::string& seed) {
    const std::string file = folder.path() / ("seed" + seed + ".json");
    const auto result =
        run_program({"simulate", "qwen3-30b-a3b", "--instances", "4", "--kv-tokens", "4096",
                     "--rate", "5", "--duration", "10", "--workload", "adversarial:mixed",
                     "--check-steps", "--policies", "dcp", "--seeds", seed, "--json", file});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    const json run = json::parse(read_whole_file(file))["runs"][0];
    EXPECT_GT(run["num_cancelled"], 0);
    EXPECT_FALSE(run["refusals"].empty());
    return run["trace_hash"].get<std::string>();
  };
  const std::string hash = hash_of("1");
  EXPECT_EQ(hash.size(), 16U);
  EXPECT_EQ(hash_of("1"), hash);
  EXPECT_NE(hash_of("2"), hash);
}

TEST(Simulate, BundledModelsAndProfilesHaveCosts) {
  for (const char* model :
       {"qwen3-235b-a22b", "deepseek-v3", "kimi-k2", "gpt-oss-120b", "glm-4.5"}) {
    const auto result =
        run_program({"simulate", model, "--hardware", "h200-nvlink", "--instances", "16", "--rate",
                     "4", "--duration", "5", "--workload", "4k -> 20", "--policies", "dcp"});
    EXPECT_EQ(result.exit_code, 0) << model << result.err;
  }
  const auto measured = run_program(
      with({"--constants", "nvidia-h100-80gb-hbm3-qwen3-30b-a3b", "--policies", "dcp"}, "4"));
  EXPECT_EQ(measured.exit_code, 0) << measured.err;
}

TEST(Simulate, FindsTheSameRateOnAnyNumberOfThreads) {
  const TempFolder folder;
  const auto search = [&](const std::string& jobs) {
    const std::string file = folder.path() / (jobs + ".json");
    const auto result = run_program({"simulate",
                                     "qwen3-30b-a3b",
                                     "--instances",
                                     "2",
                                     "--find-rate",
                                     "--policies",
                                     "bound/least_requests,uniform_cp/2",
                                     "--workload",
                                     "2k -> uniform(20,60)",
                                     "--slo",
                                     "tpot=9ms,queue=1s",
                                     "--duration",
                                     "15",
                                     "--warmup",
                                     "5",
                                     "--min-requests",
                                     "100",
                                     "--rate-precision",
                                     "0.05",
                                     "--seeds",
                                     "1,2",
                                     "--jobs",
                                     jobs,
                                     "--json",
                                     file});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(read_whole_file(file))["rates"];
  };
  const json one = search("1");
  const json many = search("6");
  ASSERT_EQ(one.size(), 4U);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_GT(one[i]["rate_per_s"], 1.0);
    EXPECT_LT(one[i]["rate_per_s"], one[i]["missed_rate_per_s"]);
    EXPECT_EQ(one[i]["limit"], "TPOT of prompts below 8k");
    EXPECT_EQ(one[i]["rate_per_s"], many[i]["rate_per_s"]);
    EXPECT_EQ(one[i]["trials"].size(), many[i]["trials"].size());
    EXPECT_EQ(one[i]["at_rate"]["trace_hash"], many[i]["at_rate"]["trace_hash"]);
    EXPECT_LE(one[i]["at_rate"]["all"]["tpot_us"]["p99"], 9'000.0);
    EXPECT_GE(one[i]["at_rate"]["all"]["num_requests"], 80);
  }
}

TEST(Simulate, NoRateWillDoWhereRequestsAreRefused) {
  const auto result =
      run_program({"simulate", "qwen3-30b-a3b", "--instances", "2", "--find-rate", "--policies",
                   "bound/least_requests", "--workload", "90% 1k -> 20 ; 10% 900k -> 20",
                   "--duration", "20", "--warmup", "1", "--min-requests", "100"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("refused requests"), std::string::npos) << result.out;
}

std::vector<std::string> plan_arguments(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"simulate", "qwen3-30b-a3b",
                                        "--plan",   "--workload",
                                        "2k -> 40", "--duration",
                                        "15",       "--warmup",
                                        "2",        "--min-requests",
                                        "100",      "--rate-precision",
                                        "0.2",      "--gpu-memory-utilization",
                                        "0.7"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Simulate, PlansTheFewestGpus) {
  const TempFolder folder;
  const std::string file = folder.path() / "plan.json";
  const auto result = run_program(plan_arguments(
      {"--rate", "300", "--slo", "tpot=12ms,queue=1s", "--gpus", "4,2,8,1", "--policies",
       "bound/least_requests,uniform_cp/4,dcp", "--jobs", "3", "--json", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json plan = json::parse(read_whole_file(file));
  EXPECT_EQ(plan["gpus"], json({2, 4, 8}));  // one does not hold the weights
  for (const json& need : plan["policies"]) {
    ASSERT_TRUE(need["num_gpus"].is_number()) << result.out;
    EXPECT_GE(need["num_gpus"], plan["best"]["num_gpus"]);
    EXPECT_TRUE(need["run"]["meets_objectives"]);
    EXPECT_EQ(need["longest_request_tokens"], 40'960);
    EXPECT_LT(need.value("num_gpus_missed", 0), need["num_gpus"]);
  }
  EXPECT_GE(plan["policies"][1]["num_gpus"], 4);
  EXPECT_GE(plan["best"]["max_rate_per_s"], 300.0);
  EXPECT_NE(result.out.find("Plan: "), std::string::npos) << result.out;

  // What the plan says holds: the number below misses, as a run of its own finds.
  const json& dcp = plan["policies"][2];
  ASSERT_TRUE(dcp.contains("num_gpus_missed")) << result.out;
  const auto below = run_program({"simulate", "qwen3-30b-a3b", "--instances",
                                  std::to_string(dcp["num_gpus_missed"].get<int>()), "--workload",
                                  "2k -> 40", "--rate", "300", "--duration", "15", "--warmup", "2",
                                  "--slo", "tpot=12ms,queue=1s", "--policies", "dcp"});
  EXPECT_NE(below.out.find("missed"), std::string::npos) << below.out;
}

TEST(Simulate, SaysWhenNoNumberOfGpusWillDo) {
  const auto result = run_program(
      plan_arguments({"--rate", "50", "--slo", "tpot=1ms", "--gpus", "2,4", "--policies", "dcp"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("None of 2 to 4 GPUs"), std::string::npos) << result.out;
  const auto tiny = run_program(plan_arguments({"--rate", "1", "--gpus", "1"}));
  EXPECT_EQ(tiny.exit_code, 1);
  EXPECT_NE(tiny.err.find("use more instances"), std::string::npos) << tiny.err;
}

TEST(Simulate, ReplaysCompressedTraces) {
  const std::string trace =
      NANOCP_SOURCE_DIR "/bench/simulator/traces/mooncake_conversation.csv.gz";
  const auto result = run_program(with({"--trace", trace, "--arrivals", "trace", "--rotate-trace",
                                        "--policies", "dcp", "--seeds", "1,2"}));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("met"), std::string::npos) << result.out;
  // A gzip file that ends too early.
  const TempFolder folder;
  const std::string cut = folder.write("cut.csv.gz", read_whole_file(trace).substr(0, 20'000));
  const auto broken = run_program(with({"--trace", cut}));
  EXPECT_EQ(broken.exit_code, 1);
  EXPECT_NE(broken.err.find("cut.csv.gz: cannot be read"), std::string::npos) << broken.err;
}

void refused(const std::vector<std::string>& more, const std::string& what) {
  const auto result = run_program(with(more));
  EXPECT_EQ(result.exit_code, 1) << what;
  EXPECT_NE(result.err.find(what), std::string::npos) << result.err;
}

TEST(Simulate, BadInputIsRefused) {
  refused({"--policies", "best"}, "policy 'best' is unknown");
  refused({"--policies", "uniform_cp/9"}, "between 1 and the number of instances");
  refused({"--policies", "uniform_cp/x"}, "is not a degree");
  refused({"--hardware", "abacus"}, "bundled profile");
  refused({"--workload", "1k"}, "PROMPT -> OUTPUT");
  refused({"--workload", "adversarial:gentle"}, "use one of bursts");
  refused({"--slo", "tpot=soon"}, "is not a time");
  refused({"--trace", "/nonexistent.csv"}, "cannot be read");
  refused({"--arrivals", "trace"}, "needs --trace");
  refused({"--constants", "h100-nvlink"}, "has no `constants`");
  const auto too_small = run_program(
      {"simulate", "deepseek-v3", "--instances", "1", "--rate", "1", "--duration", "5"});
  EXPECT_EQ(too_small.exit_code, 1);
  EXPECT_NE(too_small.err.find("use more instances"), std::string::npos) << too_small.err;
}

}  // namespace
}  // namespace nanocp::tests
