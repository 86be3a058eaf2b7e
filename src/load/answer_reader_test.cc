#include "load/answer_reader.h"

#include <gtest/gtest.h>

#include <vector>

namespace nanocp::load {
namespace {

struct Heard {
  std::vector<int64_t> tokens;  // of each piece that brought some
  AnswerReader reader;
};

// Feeds the body in pieces of that size.
Heard read(std::string_view body, size_t piece, int status = 200,
           std::string_view type = "text/event-stream; charset=utf-8") {
  Heard heard;
  heard.reader.take_head(status, type);
  for (size_t at = 0; at < body.size(); at += piece) {
    int64_t num_new = 0;
    const bool goes_on = heard.reader.take_body(body.substr(at, piece), num_new);
    if (num_new > 0) heard.tokens.push_back(num_new);
    if (!goes_on) return heard;
  }
  heard.reader.finish();
  return heard;
}

TEST(AnswerReader, CountsCompletionsHoweverTheyAreCut) {
  const std::string_view body =
      "data: {\"choices\":[{\"index\":0,\"text\":\"caf\u00e9\"}]}\n\n"
      "data: {\"choices\":[{\"index\":0,\"text\":\"\"}]}\r\n\r\n"
      "data: {\"choices\":[{\"index\":0,\"text\":\" \u6f22\",\"finish_reason\":\"length\"}]}\n\n"
      "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":3}}\n\n"
      "data: [DONE]\n\n";
  for (size_t piece = 1; piece <= body.size(); ++piece) {
    const Heard heard = read(body, piece);
    EXPECT_EQ(heard.reader.error(), "") << heard.reader.detail();
    int64_t sum = 0;
    for (const int64_t count : heard.tokens) sum += count;
    EXPECT_EQ(sum, 2) << "the third token is in the usage only";
    EXPECT_EQ(heard.reader.num_output_tokens(), 3);
    EXPECT_EQ(heard.reader.num_prompt_tokens(), 7);
    EXPECT_TRUE(heard.reader.has_usage());
  }
}

TEST(AnswerReader, CountsWhatChatsBring) {
  const Heard heard = read(
      "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"Hm\"}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n"
      "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":0}]}}]}\n\n"
      "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
      10'000);
  EXPECT_EQ(heard.reader.error(), "") << "a finish_reason will do where [DONE] is missing";
  EXPECT_EQ(heard.reader.num_output_tokens(), 3);
  EXPECT_FALSE(heard.reader.has_usage());
}

TEST(AnswerReader, ContinuousUsageSaysHowManyTokensAnEventBrings) {
  std::string body;
  for (const int count : {1, 3, 3, 6}) {
    body +=
        "data: {\"choices\":[{\"text\":\"x\"}],\"usage\":{\"prompt_tokens\":2,"
        "\"completion_tokens\":" +
        std::to_string(count) + "}}\n\n";
  }
  const Heard heard = read(body + "data: [DONE]\n\n", 80);
  EXPECT_EQ(heard.reader.error(), "");
  EXPECT_EQ(heard.reader.num_output_tokens(), 6);
  EXPECT_EQ(heard.tokens, (std::vector<int64_t>{1, 2, 3}));
}

TEST(AnswerReader, NamesWhatIsWrong) {
  const auto error_of = [](std::string_view body, int status = 200,
                           std::string_view type = "text/event-stream") {
    const Heard heard = read(body, 1000, status, type);
    return heard.reader.error() + ": " + heard.reader.detail();
  };
  EXPECT_EQ(
      error_of("{\"error\":{\"message\":\"queue is full\",\"code\":429}}", 429, "application/json"),
      "http_429: queue is full");
  EXPECT_EQ(error_of("{\"detail\":\"Not Found\"}", 404, "application/json"), "http_404: Not Found");
  EXPECT_EQ(error_of("bad\ngateway", 502, "text/html"), "http_502: bad gateway");
  EXPECT_EQ(error_of("{}", 200, "application/json").substr(0, 13), "not_a_stream:");
  EXPECT_EQ(error_of("data: {\"error\":{\"message\":\"engine died\"}}\n\n"),
            "stream_error: engine died");
  EXPECT_EQ(error_of("data: {\"choices\"\n\n").substr(0, 17), "malformed_answer:");
  EXPECT_EQ(error_of("data: {\"choices\":[{\"text\":\"x\"}]}\n\n").substr(0, 11), "stream_cut:");
  EXPECT_EQ(error_of("data: [DONE]\n\n").substr(0, 10), "no_tokens:");
}

// Whatever a server sends, the reader gets through it.
TEST(AnswerReader, OddValuesAreNoTokens) {
  for (const char* event :
       {"[]", "3", "null", "{\"choices\":3}", "{\"choices\":[3,null,{\"text\":4}]}",
        "{\"choices\":[{\"delta\":[]}]}", "{\"choices\":[{\"delta\":{\"content\":{}}}]}",
        "{\"usage\":[]}", "{\"usage\":{\"completion_tokens\":-5}}",
        "{\"usage\":{\"completion_tokens\":1e300}}", "{\"usage\":{\"prompt_tokens\":\"9\"}}"}) {
    const Heard heard = read("data: " + std::string(event) + "\n\ndata: [DONE]\n\n", 1000);
    EXPECT_NE(heard.reader.error(), "") << event;
    EXPECT_EQ(heard.reader.num_output_tokens(), 0) << event;
  }
}

}  // namespace
}  // namespace nanocp::load
