#include <gtest/gtest.h>
#include <signal.h>

#include <nlohmann/json.hpp>

#include "program.h"

namespace nanocp::tests {
namespace {

using nlohmann::json;
using Arguments = std::vector<std::string>;

constexpr const char* kPrompt = "def main():\n    return";

json generate_json(Arguments arguments) {
  arguments.insert(arguments.begin(), "generate");
  arguments.push_back("--json");
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.err, "");
  const json document = json::parse(result.out, nullptr, false);
  EXPECT_TRUE(document.is_object()) << result.out;
  return document;
}

int64_t num_kv_tokens(const json& request) {
  int64_t sum = 0;
  for (const json& shard : request["shards"]) sum += shard["num_tokens"].get<int64_t>();
  return sum;
}

// The last token is never written to the cache.
void expect_consistent(const json& request) {
  EXPECT_EQ(num_kv_tokens(request) + 1, request["num_prompt_tokens"].get<int64_t>() +
                                            static_cast<int64_t>(request["token_ids"].size()));
  int degree = 0;
  for (const json& shard : request["shards"]) degree += shard["num_tokens"] > 0 ? 1 : 0;
  EXPECT_EQ(request["degree"], degree);
}

TEST(Generate, AnswersWithTheBundledModel) {
  const json document = generate_json({"--prompt", kPrompt, "--max-tokens", "24", "--ignore-eos"});
  const json& request = document["requests"][0];
  EXPECT_EQ(request["token_ids"].size(), 24U);
  EXPECT_EQ(request["finish_reason"], "length");
  EXPECT_EQ(request["binding"], 0);
  EXPECT_EQ(request["degree"], 1);
  expect_consistent(request);
  EXPECT_EQ(document["summary"]["num_output_tokens"], 24);
  EXPECT_GT(document["summary"]["tokens_per_s"], 0);
}

// Whatever the model would rather say, and however many answers go on at once.
TEST(Generate, AnswersFollowAJsonSchema) {
  const TempFolder folder;
  const std::string schema = folder.write("schema.json", R"({
      "type": "object",
      "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "weight": {"type": "number", "minimum": 0.5, "maximum": 90},
        "born": {"type": "string", "format": "date"},
        "names": {"type": "array", "items": {"type": "string", "maxLength": 12},
                  "minItems": 1, "maxItems": 3},
        "chip": {"type": ["integer", "null"]}
      },
      "required": ["kind", "weight", "born", "names", "chip"],
      "additionalProperties": false})");
  Arguments arguments = {"--json-schema", schema, "--max-tokens", "400", "--temperature", "1",
                         "--instances",   "2",    "--seed",       "3"};
  for (int i = 0; i < 8; ++i) {
    arguments.insert(arguments.end(), {"--prompt", kPrompt + std::to_string(i)});
  }
  const json document = generate_json(arguments);
  for (const json& request : document["requests"]) {
    const std::string text = request["text"];
    EXPECT_EQ(request["finish_reason"], "stop") << text;
    const json answer = json::parse(text, nullptr, false);
    ASSERT_TRUE(answer.is_object()) << text;
    EXPECT_EQ(answer.size(), 5U) << text;
    EXPECT_TRUE(answer["kind"] == "cat" || answer["kind"] == "dog") << text;
    EXPECT_TRUE(answer["weight"] >= 0.5 && answer["weight"] <= 90) << text;
    EXPECT_EQ(answer["born"].get<std::string>().size(), 10U) << text;
    EXPECT_TRUE(answer["names"].size() >= 1 && answer["names"].size() <= 3) << text;
    EXPECT_TRUE(answer["chip"].is_null() || answer["chip"].is_number_integer()) << text;
  }
}

TEST(Generate, ASchemaThatIsNotCoveredIsNamed) {
  const TempFolder folder;
  const std::string schema = folder.write("schema.json", R"({"type":"array","uniqueItems":true})");
  const ProgramResult result =
      run_program({"generate", "--prompt", kPrompt, "--json-schema", schema});
  EXPECT_NE(result.exit_code, 0);
  EXPECT_NE(result.err.find("schema.json"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find("uniqueItems"), std::string::npos) << result.err;
}

TEST(Generate, StreamsTheSameTextAndShowsThePlacement) {
  const Arguments flags = {"--prompt",    kPrompt, "--max-tokens", "24",
                           "--instances", "4",     "--cp-degree",  "2"};
  const std::string text = generate_json(flags)["requests"][0]["text"];
  Arguments arguments = flags;
  arguments.insert(arguments.begin(), "generate");
  const ProgramResult result = run_program(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out.rfind(text, 0), 0U) << result.out;
  EXPECT_NE(result.out.find("bound to instance "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find(", degree 2 (instance "), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("1 request on 4 instances, policy uniform_cp: "), std::string::npos);
  EXPECT_NE(result.out.find(" tokens/s]"), std::string::npos);
}

TEST(Generate, GivesTheSameTokensWhereverRequestsRun) {
  const TempFolder folder;
  std::string lines;
  for (int i = 0; i < 6; ++i) {
    json line = {{"prompt", std::string(static_cast<size_t>(i * 40), 'a') + kPrompt},
                 {"max_tokens", 16 + i},
                 {"temperature", i % 2},
                 {"top_k", 50},
                 {"seed", 100 + i},
                 {"ignore_eos", true}};
    lines += line.dump() + "\n";
  }
  const std::string file = folder.write("p.jsonl", lines);
  const auto tokens = [&](const Arguments& flags) {
    Arguments arguments = {"--prompts", file};
    arguments.insert(arguments.end(), flags.begin(), flags.end());
    json result = json::array();
    const json document = generate_json(arguments);
    for (const json& request : document["requests"]) {
      expect_consistent(request);
      result.push_back(request["token_ids"]);
    }
    return result;
  };
  const json expected = tokens({});
  ASSERT_EQ(expected.size(), 6U);
  EXPECT_EQ(expected[5].size(), 21U);
  EXPECT_EQ(tokens({"--instances", "3", "--policy", "bound", "--router", "round_robin"}), expected);
  EXPECT_EQ(tokens({"--instances", "3", "--cp-degree", "3"}), expected);
  EXPECT_EQ(tokens({"--instances", "4", "--policy", "threshold_cp", "--cp-degree", "2",
                    "--cp-threshold", "64", "--block-size", "8"}),
            expected);
  EXPECT_EQ(tokens({"--instances", "4", "--min-tokens-per-shard", "16", "--prefill-chunk", "7"}),
            expected);
}

TEST(Generate, SeedsChangeTheDraw) {
  const auto tokens = [](const std::string& seed) {
    return generate_json({"--prompt", kPrompt, "--max-tokens", "16", "--temperature", "1.5",
                          "--ignore-eos", "--seed", seed})["requests"][0]["token_ids"];
  };
  const json first = tokens("1");
  EXPECT_EQ(first, tokens("1"));
  EXPECT_NE(first, tokens("2"));
}

TEST(Generate, EndsAtAStopString) {
  const Arguments flags = {"--prompt", kPrompt, "--max-tokens", "24", "--ignore-eos"};
  const std::string text = generate_json(flags)["requests"][0]["text"];
  ASSERT_GT(text.size(), 12U);
  // A stop string in the middle, on character borders.
  size_t begin = text.size() / 2;
  while ((static_cast<uint8_t>(text[begin]) & 0xc0U) == 0x80) ++begin;
  size_t end = begin + 2;
  while (end < text.size() && (static_cast<uint8_t>(text[end]) & 0xc0U) == 0x80) ++end;
  const std::string stop = text.substr(begin, end - begin);
  Arguments with_stop = flags;
  with_stop.insert(with_stop.end(), {"--stop", stop, "--stop", "never in the text"});
  const json request = generate_json(with_stop)["requests"][0];
  EXPECT_EQ(request["text"], text.substr(0, text.find(stop)));
  EXPECT_EQ(request["finish_reason"], "stop");
  EXPECT_LT(request["token_ids"].size(), 24U);
  EXPECT_EQ(request["degree"], 1);

  with_stop.insert(with_stop.end(), {"--min-tokens", "24"});
  EXPECT_EQ(generate_json(with_stop)["requests"][0]["token_ids"].size(), 24U);
}

TEST(Generate, EndsAtAStopToken) {
  const Arguments flags = {"--prompt", kPrompt, "--max-tokens", "12", "--ignore-eos"};
  const json tokens = generate_json(flags)["requests"][0]["token_ids"];
  Arguments with_stop = flags;
  with_stop.insert(with_stop.end(), {"--stop-token-ids", tokens[6].dump()});
  const json request = generate_json(with_stop)["requests"][0];
  EXPECT_EQ(request["finish_reason"], "stop");
  EXPECT_LE(request["token_ids"].size(), 7U);
  EXPECT_EQ(request["token_ids"].back(), tokens[6]);
}

TEST(Generate, GivesLogprobs) {
  const json request =
      generate_json({"--prompt", kPrompt, "--max-tokens", "4", "--logprobs", "3"})["requests"][0];
  ASSERT_EQ(request["logprobs"].size(), request["token_ids"].size());
  for (size_t i = 0; i < request["logprobs"].size(); ++i) {
    const json& entry = request["logprobs"][i];
    EXPECT_EQ(entry["token"], request["token_ids"][i]);
    ASSERT_EQ(entry["top"].size(), 3U);
    EXPECT_EQ(entry["top"][0]["token"], entry["token"]) << "greedy takes the best";
    EXPECT_GE(entry["top"][0]["logprob"], entry["top"][1]["logprob"]);
    EXPECT_LE(entry["logprob"], 0.0);
  }
}

TEST(Generate, AnswersAChatInTheFormOfTheTemplate) {
  const std::string prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
  const json plain = generate_json({"--prompt", prompt, "--max-tokens", "8"});
  const json chat = generate_json({"--chat", "hi", "--max-tokens", "8"});
  const TempFolder folder;
  const std::string messages =
      folder.write("m.json", R"({"messages": [{"role": "user", "content": "hi"}]})");
  const json file = generate_json({"--messages", messages, "--max-tokens", "8"});
  for (const json* document : {&chat, &file}) {
    EXPECT_EQ((*document)["requests"][0]["token_ids"], plain["requests"][0]["token_ids"]);
    EXPECT_EQ((*document)["requests"][0]["num_prompt_tokens"],
              plain["requests"][0]["num_prompt_tokens"]);
  }
}

TEST(Generate, RunsAConfigWithoutWeightsOnTokenIds) {
  const TempFolder folder;
  const std::string file = folder.write("p.jsonl", R"({"prompt": [1, 2, 3], "max_tokens": 5})");
  const json document =
      generate_json({"--config", "tests/fixtures/gpt_oss/config.json", "--load-format", "dummy",
                     "--instances", "2", "--ignore-eos", "--prompts", file});
  EXPECT_EQ(document["requests"][0]["token_ids"].size(), 5U);
  EXPECT_EQ(document["requests"][0]["text"], "");
}

TEST(Generate, CutsTheAnswerToTheModelLength) {
  const json request = generate_json({"--prompt", "aaaa", "--max-model-len", "20", "--ignore-eos",
                                      "--max-tokens", "500"})["requests"][0];
  EXPECT_EQ(request["num_prompt_tokens"].get<size_t>() + request["token_ids"].size(), 20U);
}

TEST(Generate, EndsCleanlyWhenInterrupted) {
  const ProgramResult result = run_program(
      {"generate", "--prompt", kPrompt, "--max-tokens", "8000", "--ignore-eos", "--instances", "2"},
      [](int pid, const std::string& out) { return !out.empty() && kill(pid, SIGINT) == 0; });
  EXPECT_EQ(result.exit_code, 130);
  EXPECT_EQ(result.err, "");
  EXPECT_NE(result.out.find("ended by cancelled; bound to instance "), std::string::npos);
  EXPECT_NE(result.out.find(" tokens/s]"), std::string::npos);
}

}  // namespace
}  // namespace nanocp::tests
