// Answers of both endpoints, as one body and as events, from tokens put in by hand.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/response_writer.h"
#include "api/test_context.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;
using request::FinishReason;

struct Answer {
  std::string out;
  std::vector<Progress> progress;
  Usage usage;

  Json body() const { return Json::parse(out); }
  // Every event must be valid JSON, the last one [DONE].
  std::vector<Json> events() const {
    std::vector<Json> events;
    size_t at = 0;
    while (at < out.size()) {
      const size_t end = out.find("\n\n", at);
      const std::string line = out.substr(at, end - at);
      EXPECT_TRUE(line.starts_with("data: ")) << line;
      if (line == "data: [DONE]") {
        EXPECT_EQ(end + 2, out.size());
        return events;
      }
      events.push_back(Json::parse(line.substr(6)));
      at = end + 2;
    }
    ADD_FAILURE() << "no [DONE]: " << out;
    return events;
  }
};

std::vector<TokenId> tokens_of(const std::string& text) {
  return test_context().tokenizer->encode(text, true);
}

engine::TokenEvent event_of(TokenId token, FinishReason reason) {
  engine::TokenEvent event;
  event.token = token;
  event.logprob = -0.5F;
  event.finish_reason = reason;
  event.is_text = reason != FinishReason::kStop;
  return event;
}

// What the events of a chat's only choice spell.
std::string text_of(const std::vector<Json>& events) {
  std::string text;
  for (const Json& event : events) {
    if (!event["choices"].empty()) text += event["choices"][0]["delta"].value("content", "");
  }
  return text;
}

// One choice that says `text` and ends with `reason`, kStop by an end token after it.
Answer answer(GenerationRequest request, const std::string& text, FinishReason reason) {
  Answer result;
  ResponseWriter writer(std::move(request.output), test_context(),
                        {.id = "id-1", .created_s = 1700000001});
  writer.begin(result.out);
  std::vector<TokenId> tokens = tokens_of(text);
  if (reason == FinishReason::kStop) tokens.push_back(510);
  for (size_t i = 0; i < tokens.size(); ++i) {
    engine::TokenEvent event =
        event_of(tokens[i], i + 1 == tokens.size() ? reason : FinishReason::kNone);
    event.details.make().top_logprobs = {{tokens[i], -0.5F}, {65, -1.5F}};
    result.progress.push_back(writer.push(0, event, result.out));
    if (result.progress.back().finished) break;
  }
  EXPECT_TRUE(writer.done());
  writer.finish(result.out);
  result.usage = writer.usage();
  return result;
}

GenerationRequest chat(const std::string& fields) {
  auto result = parse_chat_completion(
      json("{'messages':[{'role':'user','content':'Hi'}]" + fields + "}"), test_context());
  return std::move(std::get<GenerationRequest>(result));
}

GenerationRequest completion(const std::string& fields) {
  auto result = parse_completion(json("{'prompt':'Say'" + fields + "}"), test_context());
  return std::move(std::get<GenerationRequest>(result));
}

TEST(ResponseWriter, ChatAsOneBody) {
  const Answer result = answer(chat(""), "Grüße \"you\"\n", FinishReason::kStop);
  const int64_t num_prompt = result.usage.num_prompt_tokens;
  const auto num_output = static_cast<int64_t>(tokens_of("Grüße \"you\"\n").size()) + 1;
  const Json expected = {
      {"id", "id-1"},
      {"object", "chat.completion"},
      {"created", 1700000001},
      {"model", "tiny"},
      {"choices",
       {{{"index", 0},
         {"message", {{"role", "assistant"}, {"content", "Grüße \"you\"\n"}, {"refusal", nullptr}}},
         {"logprobs", nullptr},
         {"finish_reason", "stop"},
         {"stop_reason", nullptr}}}},
      {"usage",
       {{"prompt_tokens", num_prompt},
        {"completion_tokens", num_output},
        {"total_tokens", num_prompt + num_output}}}};
  EXPECT_EQ(result.body(), expected) << result.out;
}

TEST(ResponseWriter, ChatAsEvents) {
  const Answer result = answer(chat(",'stream':true,'stream_options':{'include_usage':true}"),
                               "Grüße", FinishReason::kLength);
  const std::vector<Json> events = result.events();
  ASSERT_GE(events.size(), 3U);
  for (const Json& event : events) {
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    EXPECT_EQ(event["id"], "id-1");
    ASSERT_TRUE(event.contains("usage"));
    if (event["choices"].empty()) continue;
    EXPECT_TRUE(event["usage"].is_null());
  }
  EXPECT_EQ(events[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(text_of(events), "Grüße");
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(events.back()["usage"]["completion_tokens"], result.usage.num_output_tokens);
}

TEST(ResponseWriter, AStopStringCancelsAndIsNotShown) {
  for (const bool stream : {false, true}) {
    const Answer result =
        answer(chat(std::string(",'stop':['END','x']") + (stream ? ",'stream':true" : "")),
               "before END after", FinishReason::kLength);
    EXPECT_TRUE(result.progress.back().finished && result.progress.back().cancel);
    if (stream) {
      EXPECT_EQ(text_of(result.events()), "before ");
      continue;
    }
    const Json body = result.body();
    EXPECT_EQ(body["choices"][0]["message"]["content"], "before ");
    EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(body["choices"][0]["stop_reason"], "END");
  }
  const Answer shown = answer(chat(",'stop':'END','include_stop_str_in_output':true"),
                              "before END after", FinishReason::kLength);
  EXPECT_EQ(shown.body()["choices"][0]["message"]["content"], "before END");
}

TEST(ResponseWriter, ChatLogprobsHaveTokenAndBytes) {
  const Answer result =
      answer(chat(",'logprobs':true,'top_logprobs':1"), "\u20ac", FinishReason::kLength);
  const Json entries = result.body()["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(entries.size(), 3U) << "a token per byte";
  const Json expected = {
      {"token", "\ufffd"},
      {"logprob", -0.5},
      {"bytes", {0xe2}},
      {"top_logprobs", {{{"token", "\ufffd"}, {"logprob", -0.5}, {"bytes", {0xe2}}}}}};
  EXPECT_EQ(entries[0], expected);
}

TEST(ResponseWriter, CompletionLogprobsAreColumns) {
  for (const bool stream : {false, true}) {
    const Answer result =
        answer(completion(std::string(",'logprobs':2") + (stream ? ",'stream':true" : "")),
               "a\u20ac", FinishReason::kLength);
    Json columns = {{"text_offset", Json::array()},
                    {"token_logprobs", Json::array()},
                    {"tokens", Json::array()},
                    {"top_logprobs", Json::array()}};
    const std::vector<Json> parts = stream ? result.events() : std::vector<Json>{result.body()};
    for (const Json& part : parts) {
      for (const auto& item : part["choices"][0]["logprobs"].items()) {
        for (const Json& value : item.value()) columns[item.key()].push_back(value);
      }
    }
    EXPECT_EQ(columns["tokens"], Json({"a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac"}));
    EXPECT_EQ(columns["token_logprobs"], Json({-0.5, -0.5, -0.5, -0.5}));
    EXPECT_EQ(columns["text_offset"], Json({0, 1, 11, 21}));
    EXPECT_EQ(columns["top_logprobs"][1], Json({{"bytes:\\xe2", -0.5}, {"b", -1.5}}));
  }
}

TEST(ResponseWriter, ImpossibleTokensHaveAFiniteLogprob) {
  LogprobsText logprobs(Endpoint::kChat, *test_context().tokenizer, 0);
  logprobs.add(64, -std::numeric_limits<float>::infinity(), {});
  std::string out;
  logprobs.take(out);
  EXPECT_EQ(Json::parse(out)["content"][0]["logprob"], -9999);
}

TEST(ResponseWriter, EchoPutsThePromptFirst) {
  const Answer result = answer(completion(",'echo':true"), " it", FinishReason::kLength);
  EXPECT_EQ(result.body()["choices"][0]["text"], "Say it");
  const Answer prompt_only =
      answer(completion(",'echo':true,'max_tokens':0"), "x", FinishReason::kLength);
  EXPECT_EQ(prompt_only.body()["choices"][0]["text"], "Say");
  EXPECT_EQ(prompt_only.body()["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(prompt_only.body()["usage"]["completion_tokens"], 0);
}

// What lm-eval asks for.
TEST(ResponseWriter, EchoedPromptsHaveLogprobs) {
  GenerationRequest request = completion(",'echo':true,'logprobs':1,'max_tokens':1");
  EXPECT_EQ(request.requests[0].num_prompt_logprobs, 1);
  const std::vector<TokenId> prompt = request.requests[0].prompt;
  ASSERT_GT(prompt.size(), 1U);
  ResponseWriter writer(std::move(request.output), test_context(), {.id = "x"});
  engine::TokenEvent event = event_of(64, FinishReason::kLength);
  engine::TokenDetails& details = event.details.make();
  details.top_logprobs = {{64, -0.5F}};
  for (size_t i = 1; i < prompt.size(); ++i) {
    details.prompt_scores.push_back(
        {.logprob = -static_cast<float>(i), .top_logprobs = {{65, -0.25F}}});
  }
  std::string out;
  writer.push(0, event, out);
  writer.finish(out);
  const Json logprobs = Json::parse(out)["choices"][0]["logprobs"];
  const size_t count = prompt.size() + 1;
  for (const char* name : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) {
    EXPECT_EQ(logprobs[name].size(), count) << name;
  }
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  EXPECT_EQ(logprobs["token_logprobs"][1], -1.0);
  EXPECT_EQ(logprobs["top_logprobs"][1]["b"], -0.25);
  EXPECT_EQ(logprobs["token_logprobs"][count - 1], -0.5);
}

TEST(ResponseWriter, TokenIdsOnRequest) {
  const Answer one = answer(completion(",'return_token_ids':true"), "ab", FinishReason::kStop);
  std::vector<TokenId> ids = tokens_of("ab");
  ids.push_back(510);
  EXPECT_EQ(one.body()["choices"][0]["token_ids"], ids);
  EXPECT_EQ(one.body()["choices"][0]["prompt_token_ids"], tokens_of("Say"));
  const Answer streamed =
      answer(chat(",'return_token_ids':true,'stream':true"), "ab", FinishReason::kStop);
  std::vector<TokenId> all;
  for (const Json& event : streamed.events()) {
    const Json& choice = event["choices"][0];
    if (!choice.contains("token_ids")) continue;
    for (const Json& id : choice["token_ids"]) all.push_back(id.get<TokenId>());
  }
  EXPECT_EQ(all, ids);
  EXPECT_TRUE(streamed.events()[0].contains("prompt_token_ids"));
}

TEST(ResponseWriter, ChoicesDoNotMix) {
  GenerationRequest request = completion(",'n':2,'stream':true,'stop':'!'");
  ResponseWriter writer(std::move(request.output), test_context(), {.id = "x"});
  std::string out;
  const std::vector<TokenId> first = tokens_of("one");
  const std::vector<TokenId> second = tokens_of("two!");
  std::string texts[2];
  for (size_t i = 0; i < 4; ++i) {
    for (size_t index = 0; index < 2; ++index) {
      const auto& tokens = index == 0 ? first : second;
      if (i >= tokens.size()) continue;
      const bool is_last = index == 0 && i + 1 == tokens.size();
      engine::TokenEvent event =
          event_of(tokens[i], is_last ? FinishReason::kLength : FinishReason::kNone);
      out.clear();
      writer.push(index, event, out);
      if (out.empty()) continue;
      const Json chunk = Json::parse(out.substr(6));
      EXPECT_EQ(chunk["choices"][0]["index"], index);
      texts[index] += chunk["choices"][0]["text"].get<std::string>();
    }
  }
  EXPECT_EQ(texts[0], "one");
  EXPECT_EQ(texts[1], "two");
  EXPECT_TRUE(writer.done());
}

TEST(ResponseWriter, FailureInTheMiddleIsAnEvent) {
  GenerationRequest request = chat(",'stream':true");
  ResponseWriter writer(std::move(request.output), test_context(), {.id = "x"});
  Answer result;
  writer.begin(result.out);
  writer.fail({.status = 500, .message = "broken \xff", .type = "internal_server_error"},
              result.out);
  EXPECT_EQ(result.events().back()["error"]["message"], "broken \ufffd");
  EXPECT_EQ(result.events().back()["error"]["param"], nullptr);
}

}  // namespace
}  // namespace nanocp::api
