// `nanocp simulate` as a user runs it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

std::vector<std::string> with(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"simulate", "qwen3-30b-a3b", "--instances", "4", "--rate",
                                        "8",        "--duration",    "20"};
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
    const auto result = run_program({"simulate", model, "--hardware", "h200-nvlink", "--instances",
                                     "16", "--rate", "4", "--duration", "5", "--policies", "dcp"});
    EXPECT_EQ(result.exit_code, 0) << model << result.err;
  }
  const auto measured = run_program(
      with({"--constants", "nvidia-h100-80gb-hbm3-qwen3-30b-a3b", "--policies", "dcp"}));
  EXPECT_EQ(measured.exit_code, 0) << measured.err;
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
