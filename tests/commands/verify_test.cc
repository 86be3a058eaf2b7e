#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;
using Arguments = std::vector<std::string>;

constexpr const char* kModel = "tests/fixtures/mixtral";
constexpr const char* kLatentModel = "tests/fixtures/deepseek_v3_fp8";

// The golden results of a fixture, its short cases only.
json short_golden(const std::string& model, size_t num_cases) {
  json golden = json::parse(read_whole_file(model + "/golden.json"));
  golden["cases"].erase(golden["cases"].begin() + static_cast<std::ptrdiff_t>(num_cases),
                        golden["cases"].end());
  return golden;
}

struct Verified {
  int exit_code;
  json document;
};

Verified verify_json(Arguments arguments) {
  arguments.insert(arguments.begin(), "verify");
  arguments.push_back("--json");
  const ProgramResult result = run_program(arguments);
  json document = json::parse(result.out, nullptr, false);
  EXPECT_TRUE(document.is_object()) << result.out << result.err;
  return {result.exit_code, std::move(document)};
}

void expect_passes(const Arguments& arguments) {
  const Verified verified = verify_json(arguments);
  EXPECT_EQ(verified.exit_code, 0);
  const json& summary = verified.document["summary"];
  EXPECT_EQ(summary["passed"], true);
  EXPECT_EQ(summary["num_greedy_mismatches"], 0);
  EXPECT_GT(summary["largest_error"], 0.0);
  EXPECT_LT(summary["largest_error"], 1e-4);
  for (const json& entry : verified.document["cases"]) {
    EXPECT_EQ(entry["passed"], true);
    EXPECT_EQ(entry["num_greedy_equal"], 24);
    EXPECT_FALSE(entry["decode_error"].is_null());
  }
}

TEST(Verify, ChecksATokenizerAndItsTemplate) {
  const std::string folder = "src/text/testdata/chat_templates/qwen3";
  const Verified passed =
      verify_json({"--tokenizer", folder, "--golden", folder + "/golden.jsonl"});
  EXPECT_EQ(passed.exit_code, 0);
  EXPECT_EQ(passed.document["summary"]["num_chats"], 34);
  EXPECT_EQ(passed.document["summary"]["num_failed"], 0);

  const TempFolder own;
  const std::string golden =
      own.write("g.jsonl",
                "{\"kind\":\"text\",\"id\":\"a\",\"text\":\"!\",\"ids\":[0],\"decoded\":\"!\"}\n"
                "{\"kind\":\"text\",\"id\":\"b\",\"text\":\"!\",\"ids\":[1],\"decoded\":\"!\"}\n");
  const Verified failed =
      verify_json({"--tokenizer", "tests/fixtures/tiny_chat", "--golden", golden});
  EXPECT_EQ(failed.exit_code, 1);
  ASSERT_EQ(failed.document["failures"].size(), 1U);
  EXPECT_EQ(failed.document["failures"][0]["id"], "b");
}

TEST(Verify, FixturesPassUnderEveryPlacement) {
  const TempFolder folder;
  for (const char* model : {kModel, kLatentModel}) {
    const std::string golden = folder.write("golden.json", short_golden(model, 10).dump());
    const std::string legacy = std::string(model) + "/config.legacy.json";
    expect_passes({model, "--golden", golden});
    expect_passes(
        {model, "--golden", golden, "--config", legacy, "--instances", "3", "--cp-degree", "3"});
    expect_passes({model, "--golden", golden, "--instances", "4", "--policy", "dcp",
                   "--min-tokens-per-shard", "32", "--prefill-chunk", "7"});
  }
}

TEST(Verify, AnFp8CacheStaysNearTheGolden) {
  const TempFolder folder;
  for (const char* model : {kModel, kLatentModel}) {
    const std::string golden = folder.write("golden.json", short_golden(model, 3).dump());
    const Arguments arguments = {model, "--golden", golden, "--kv-cache-dtype", "fp8"};
    EXPECT_EQ(verify_json(arguments).exit_code, 1) << "as exact as float32?";
    Arguments wider = arguments;
    wider.insert(wider.end(), {"--tolerance", "0.15", "--instances", "2", "--cp-degree", "2"});
    const Verified verified = verify_json(wider);
    EXPECT_EQ(verified.exit_code, 0);
    EXPECT_EQ(verified.document["summary"]["kv_cache_dtype"], "fp8");
    EXPECT_GT(verified.document["summary"]["largest_error"], 5e-3);
  }
}

TEST(Verify, ReportsDegreesAndCasesAsText) {
  const TempFolder folder;
  const std::string golden = folder.write("golden.json", short_golden(kModel, 3).dump());
  const ProgramResult result =
      run_program({"verify", kModel, "--golden", golden, "--instances", "2", "--cp-degree", "2"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_NE(result.out.find("24 of 24 equal"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("PASSED: 3 cases on 2 instances, policy uniform_cp"), std::string::npos)
      << result.out;
}

TEST(Verify, FailsPastTheTolerance) {
  const TempFolder folder;
  json golden = short_golden(kModel, 3);
  double largest = 0.0;
  for (const json& logit : golden["cases"][1]["last_logits"]) {
    largest = std::max(largest, std::abs(logit.get<double>()));
  }
  json& logit = golden["cases"][1]["last_logits"][5];
  logit = logit.get<double>() + 0.01 * largest;
  const std::string file = folder.write("golden.json", golden.dump());

  const Verified failed = verify_json({kModel, "--golden", file});
  EXPECT_EQ(failed.exit_code, 1);
  EXPECT_EQ(failed.document["summary"]["num_failed"], 1);
  EXPECT_EQ(failed.document["cases"][1]["passed"], false);
  EXPECT_NEAR(failed.document["cases"][1]["last_logits_error"].get<double>(), 0.01, 1e-3);
  EXPECT_EQ(verify_json({kModel, "--golden", file, "--tolerance", "0.02"}).exit_code, 0);
}

TEST(Verify, TellsTiesFromMismatches) {
  const TempFolder folder;
  json golden = short_golden(kModel, 2);
  const int64_t token = golden["cases"][0]["greedy"][23].get<int64_t>();
  golden["cases"][0]["greedy"][23] = (token + 1) % 512;
  golden["cases"][0]["top2_margin"][23] = 1e-5;
  golden["cases"][1]["greedy"][23] = (golden["cases"][1]["greedy"][23].get<int64_t>() + 1) % 512;
  golden["cases"][1]["top2_margin"][23] = 3.0;
  const std::string file = folder.write("golden.json", golden.dump());
  const Verified verified = verify_json({kModel, "--golden", file});
  EXPECT_EQ(verified.exit_code, 1);
  EXPECT_EQ(verified.document["cases"][0]["tie_at"], 23);
  EXPECT_TRUE(verified.document["cases"][0]["mismatch_at"].is_null());
  EXPECT_TRUE(verified.document["cases"][0]["decode_error"].is_null());
  EXPECT_EQ(verified.document["cases"][1]["mismatch_at"], 23);
  EXPECT_EQ(verified.document["cases"][1]["num_greedy_equal"], 23);
}

TEST(Verify, RefusesABadGolden) {
  const TempFolder folder;
  const auto refused = [&](const std::string& content, const std::string& message) {
    const std::string file = folder.write("golden.json", content);
    const ProgramResult result = run_program({"verify", kModel, "--golden", file});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_EQ(result.out, "");
    EXPECT_EQ(result.err, "error: " + file + ": " + message + "\n");
  };
  refused("", "not valid JSON");
  refused("{\"cases\": [", "not valid JSON");
  refused("[]", "cases must be an array of cases");
  refused("{\"cases\": []}", "cases must be an array of cases");
  refused("{\"cases\": [3]}", "cases[0] must be an object");
  const auto changed = [&](const char* field, const json& value) {
    json golden = short_golden(kModel, 2);
    golden["cases"][1][field] = value;
    return golden.dump();
  };
  refused(changed("prompt", nullptr), "cases[1].prompt must be an array");
  refused(changed("prompt", json::array()), "cases[1].prompt must be at least one token");
  refused(changed("prompt", {512}), "cases[1].prompt must be token ids from 0 to 511");
  refused(changed("greedy", {-1}), "cases[1].greedy must be token ids from 0 to 511");
  refused(changed("last_logits", {1.0, 2.0}), "cases[1].last_logits must be 512 numbers, not 2");
  refused(changed("top2_margin", {1.0}), "cases[1].top2_margin must be 24 numbers, not 1");
  refused(changed("logits_after", json(std::vector<json>(512, "a"))),
          "cases[1].logits_after must be numbers");
}

}  // namespace
}  // namespace nanocp::tests
