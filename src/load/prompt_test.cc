#include "load/prompt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "load/target.h"

namespace nanocp::load {
namespace {

using nlohmann::json;

TEST(Prompt, RandomIdsHaveTheirNumberAndRange) {
  const auto source = random_ids({.low = 100, .high = 103}, 5);
  sim::Arrival lengths{.num_prompt_tokens = 200};
  const json ids = json::parse(source->make(3, lengths));
  ASSERT_EQ(ids.size(), 200U);
  EXPECT_EQ(*std::min_element(ids.begin(), ids.end()), 100);
  EXPECT_EQ(*std::max_element(ids.begin(), ids.end()), 103);
  EXPECT_EQ(json::parse(source->make(3, lengths)), ids) << "the same request, the same prompt";
  EXPECT_NE(json::parse(source->make(4, lengths)), ids) << "no prefix to share";
}

TEST(Prompt, RandomTextHasAsManyWordsAsMakeTheTokens) {
  const auto source = random_text(Api::kChat, {.tokens_per_word = 2.0, .tokens_around = 10.0}, 5);
  sim::Arrival lengths{.num_prompt_tokens = 110};
  const json messages = json::parse(source->make(0, lengths));
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0]["role"], "user");
  const std::string text = messages[0]["content"];
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 49) << text;
  const std::string plain = json::parse(word_prompt(Api::kCompletions, 3, 1));
  EXPECT_EQ(std::count(plain.begin(), plain.end(), ' '), 2) << plain;
}

TEST(Prompt, FilesAreReadLineByLine) {
  const auto source =
      parse_prompts("{\"prompt\": \"a \\\"b\\\"\"}\r\n\n{\"prompt\": [1, 2, 3], \"max_tokens\": 9}",
                    "f.jsonl", Api::kCompletions);
  ASSERT_TRUE(source.ok()) << source.error().message;
  sim::Arrival lengths{.num_prompt_tokens = 77, .num_output_tokens = 5};
  EXPECT_EQ((*source)->make(0, lengths), "\"a \\\"b\\\"\"");
  EXPECT_EQ(lengths.num_prompt_tokens, 0) << "not known";
  EXPECT_EQ(lengths.num_output_tokens, 5);
  EXPECT_EQ((*source)->make(3, lengths), "[1,2,3]");
  EXPECT_EQ(lengths.num_prompt_tokens, 3);
  EXPECT_EQ(lengths.num_output_tokens, 9);
  const auto chat = parse_prompts("{\"prompt\": \"hi\"}\n{\"messages\": [{\"role\": \"user\"}]}",
                                  "f.jsonl", Api::kChat);
  ASSERT_TRUE(chat.ok()) << chat.error().message;
  EXPECT_EQ(json::parse((*chat)->make(0, lengths))[0]["content"], "hi");
  EXPECT_EQ(json::parse((*chat)->make(1, lengths))[0]["role"], "user");
}

TEST(Prompt, FilesWithFaultsNameTheLine) {
  const auto fault = [](const std::string& line, Api api) {
    return parse_prompts("{\"prompt\":\"x\"}\n" + line, "f", api).error().message;
  };
  for (const char* line : {"x", "[1]", "{}", "{\"prompt\": 3}", "{\"prompt\": []}",
                           "{\"prompt\": [-1]}", "{\"prompt\": [\"a\"]}", "{\"messages\": [{}]}",
                           "{\"prompt\": \"a\", \"max_tokens\": 0}"}) {
    EXPECT_EQ(fault(line, Api::kCompletions).rfind("f line 2: ", 0), 0U) << line;
  }
  EXPECT_EQ(fault("{\"prompt\": [1]}", Api::kChat).rfind("f line 2: has token ids", 0), 0U);
  EXPECT_FALSE(parse_prompts("\n", "f", Api::kChat).ok());
}

TEST(Target, BodiesHaveWhatIsAskedFor) {
  const auto target = Target::make({.api = Api::kCompletions,
                                    .base_path = "/v1",
                                    .model = "m",
                                    .api_key = "key",
                                    .extra_body = "{\"temperature\":0,\"ignore_eos\":null}"});
  ASSERT_TRUE(target.ok());
  const auto request = target->request("[1,2]", 17);
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.target, "/v1/completions");
  EXPECT_EQ(json::parse(request.body), json::parse(R"({"model": "m", "prompt": [1, 2],
      "stream": true, "stream_options": {"include_usage": true}, "temperature": 0,
      "max_tokens": 17})"));
  EXPECT_EQ(request.headers[0].second, "Bearer key");
  EXPECT_EQ(json::parse(target->probe("\"x\"").body),
            json::parse(R"({"model": "m", "prompt": "x", "stream": false, "temperature": 0,
      "max_tokens": 1})"));
  const auto chat = Target::make(
      {.api = Api::kChat, .base_path = "", .model = "m", .extra_body = "{\"max_tokens\":4}"});
  ASSERT_TRUE(chat.ok());
  const json body = json::parse(chat->request("[]", 17).body);
  EXPECT_EQ(chat->request("[]", 17).target, "/chat/completions");
  EXPECT_EQ(body["max_tokens"], 4) << "the user's goes first";
  EXPECT_EQ(body["ignore_eos"], true);
  for (const char* extra : {"x", "[]", "{\"stream\":false}", "{\"prompt\":\"x\"}"}) {
    EXPECT_FALSE(Target::make({.model = "m", .extra_body = extra}).ok()) << extra;
  }
  EXPECT_FALSE(Target::make({.model = "m", .api_key = "a\r\nX: y"}).ok());
}

}  // namespace
}  // namespace nanocp::load
