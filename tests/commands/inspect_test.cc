// `nanocp inspect` as a user runs it.
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;

json inspect(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "inspect");
  arguments.emplace_back("--json");
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out, nullptr, false);
}

TEST(Inspect, DirectoriesConfigFilesAndBundledNames) {
  EXPECT_EQ(inspect({"tests/fixtures/gpt_oss"})["architecture"], "GptOssForCausalLM");
  const json older = inspect({"tests/fixtures/deepseek_v3/config.legacy.json"});
  EXPECT_EQ(older["attention"], "mla");
  const json bundled = inspect({"deepseek-v3"});
  EXPECT_EQ(bundled["kv_bytes_per_token"], 70'272);
  EXPECT_EQ(bundled["weights"], "fp8");
  EXPECT_FALSE(bundled.contains("longest_request"));
  // A byte per value and one for the exponent of the 576.
  EXPECT_EQ(inspect({"deepseek-v3", "--kv-cache-dtype", "fp8"})["kv_bytes_per_token"], 61 * 577);
}

TEST(Inspect, MoreInstancesLeaveRoomForLongerRequests) {
  const json found = inspect({"glm-4.5", "--instances", "8", "--memory", "140GB"});
  EXPECT_EQ(found["memory_bytes_per_instance"], 140'000'000'000);
  const json& longest = found["longest_request"];
  ASSERT_EQ(longest.size(), 4U);  // degrees 1, 2, 4 and 8
  EXPECT_EQ(longest[0]["num_tokens"], found["kv_tokens_per_instance"]);
  EXPECT_EQ(longest[1]["num_tokens"].get<int64_t>(), 2 * longest[0]["num_tokens"].get<int64_t>());
  EXPECT_EQ(longest[3]["num_tokens"], found["max_position"]);
  const json alone = inspect({"glm-4.5", "--memory", "140GB"});
  EXPECT_EQ(alone["kv_tokens_per_instance"], 0);
}

TEST(Inspect, TextShowsWhatTheModelNeeds) {
  const ProgramResult result = run_program({"inspect", "qwen3-30b-a3b", "--memory", "80GB"});
  EXPECT_EQ(result.exit_code, 0);
  for (const char* words : {"30.53 B in all", "61.06 GB (bf16)", "98,304 bytes per token",
                            "40,960 tokens at degree 1 (the model's limit)"}) {
    EXPECT_NE(result.out.find(words), std::string::npos) << words << "\n" << result.out;
  }
}

TEST(Inspect, ErrorsAreOneLine) {
  const TempFolder folder;
  const std::string bad = folder.write("config.json", R"({"model_type": "llama"})");
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"inspect", "no-such-model"}, "qwen3-30b-a3b"},
      {{"inspect", bad}, "model_type \"llama\" is not supported"},
      {{"inspect", folder.path().string()}, "config.json"},
      {{"inspect", "models"}, "models/config.json: no such file"},
      {{"inspect", "deepseek-v3", "--memory", "80 parsecs"}, "--memory"},
      {{"inspect", "deepseek-v3", "--instances", "0"}, "--instances"},
  };
  for (const auto& [arguments, wanted] : cases) {
    const ProgramResult result = run_program(arguments);
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
    EXPECT_NE(result.err.find(wanted), std::string::npos) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

}  // namespace
}  // namespace nanocp::tests
