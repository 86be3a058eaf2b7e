// Formats are recognised by what published chat templates write, and what those write is read back.
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "api/output/output_test_support.h"
#include "api/output_parser.h"
#include "text/byte_level.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

text::ChatTemplate published(const std::string& folder) {
  auto loaded = text::ChatTemplate::load("src/text/testdata/chat_templates/" + folder);
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  return std::move(loaded).value();
}

text::ChatTemplate written(std::string_view source) {
  auto loaded = text::ChatTemplate::from_string(source, "written", {});
  EXPECT_TRUE(loaded.ok()) << loaded.error().message;
  return std::move(loaded).value();
}

// A tokenizer of single bytes and the given special tokens.
text::Tokenizer tokenizer_with(const std::vector<std::string>& special) {
  Json vocab;
  for (int byte = 0; byte < 256; ++byte) {
    vocab[text::byte_character(static_cast<uint8_t>(byte))] = byte;
  }
  Json json = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", Json::array()}}},
               {"added_tokens", Json::array()},
               {"decoder", {{"type", "ByteLevel"}}},
               {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}}};
  for (size_t i = 0; i < special.size(); ++i) {
    json["added_tokens"].push_back({{"id", i + 256},
                                    {"content", special[i]},
                                    {"special", true},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false}});
  }
  auto tokenizer = text::Tokenizer::from_json(json.dump(), "bytes");
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  return std::move(tokenizer).value();
}

std::string chosen(const text::ChatTemplate* chat_template,
                   const std::vector<std::string>& special = {}, std::string_view calls = "auto",
                   std::string_view reasoning = "auto") {
  const auto format =
      choose_output_format(calls, reasoning, chat_template, tokenizer_with(special));
  if (!format.ok()) return format.error().message;
  return std::string(to_string(format->tool_calls)) + " " +
         std::string(to_string(format->reasoning));
}

TEST(OutputFormat, IsRecognisedByWhatTheTemplateWrites) {
  const auto qwen = published("qwen3");
  const auto deepseek = published("deepseek_v3");
  const auto deepseek_next = published("deepseek_v3_1");
  const auto gptoss = published("gptoss");
  const auto kimi = published("kimi_k2");
  EXPECT_EQ(chosen(&qwen, {"<think>", "</think>"}), "hermes qwen3");
  EXPECT_EQ(chosen(&deepseek), "deepseek_v3 none");
  EXPECT_EQ(chosen(&deepseek_next, {"</think>"}), "deepseek_v31 qwen3");
  EXPECT_EQ(chosen(&gptoss, {"<|channel|>", "<|message|>"}), "openai openai_gptoss");
  EXPECT_EQ(chosen(&kimi), "kimi_k2 none");
  EXPECT_EQ(chosen(nullptr), "none none");

  const std::string loop =
      "{% for m in messages %}{{ m.content or '' }}{% for c in m.tool_calls or [] %}";
  const std::string end = "{% endfor %}{% endfor %}";
  const auto glm = written(loop + "<tool_call>{{ c.function.name }}\n<arg_key>" + end);
  EXPECT_EQ(chosen(&glm, {"</think>"}), "glm45 qwen3");
  const auto coder = written(loop + "<tool_call>\n<function={{ c.function.name }}>\n" + end);
  EXPECT_EQ(chosen(&coder), "qwen3_coder none");
  const auto mistral = written(loop + "[TOOL_CALLS] [{{ c.function | tojson }}]" + end);
  EXPECT_EQ(chosen(&mistral), "mistral none");
  const auto plain = written("{% for m in messages %}{{ m.content }}{% endfor %}");
  EXPECT_EQ(chosen(&plain), "none none");
}

TEST(OutputFormat, IsChosenByName) {
  EXPECT_EQ(chosen(nullptr, {}, "hermes", "deepseek_r1"), "hermes deepseek_r1");
  EXPECT_EQ(chosen(nullptr, {"</think>"}, "none", "none"), "none none");
  EXPECT_EQ(chosen(nullptr, {}, "openai"), "openai openai_gptoss");
  EXPECT_EQ(chosen(nullptr, {}, "qwen"),
            "--tool-call-parser qwen is not known; choose one of auto, none, hermes, qwen3_coder, "
            "deepseek_v3, deepseek_v31, openai, kimi_k2, glm45, mistral");
  EXPECT_NE(chosen(nullptr, {}, "none", "r1").find("--reasoning-parser r1"), std::string::npos);
  EXPECT_NE(chosen(nullptr, {}, "hermes", "openai_gptoss").find("read one format"),
            std::string::npos);
}

TEST(OutputFormat, TellsWhichSpecialTokensItIsWrittenWith) {
  EXPECT_TRUE(format_tokens({}).empty());
  const auto qwen = format_tokens(
      {.reasoning = ReasoningFormat::kThinkTags, .tool_calls = ToolCallFormat::kHermes});
  EXPECT_EQ(qwen,
            (std::vector<std::string_view>{"<tool_call>", "</tool_call>", "<think>", "</think>"}));
  const auto harmony = format_tokens({.reasoning = ReasoningFormat::kHarmony, .tool_calls = {}});
  EXPECT_EQ(harmony.size(), 7U);
}

// The arguments of a call as its template takes them.
struct RoundTrip {
  std::string folder;
  bool text_arguments;
  std::string answer_end;  // what the template writes after an answer, if it does
};

class OutputFormatRoundTrip : public testing::TestWithParam<RoundTrip> {};

TEST_P(OutputFormatRoundTrip, ReadsBackTheCallThatATemplateWrites) {
  const auto chat_template = published(GetParam().folder);
  const Json arguments = {{"city", "S\u00e3o \"Paulo\" </tool_call> \\ \n \U0001F600"},
                          {"days", Json::array({1, 2.5, nullptr, true})},
                          {"deep", {{"a", {{"b", Json::object()}}}}}};
  const Json user = {{"role", "user"}, {"content", "What is the weather?"}};
  const Json function = {
      {"name", "get_weather"},
      {"arguments", GetParam().text_arguments ? Json(arguments.dump()) : arguments}};
  const Json assistant = {
      {"role", "assistant"},
      {"content", GetParam().folder == "deepseek_v3" ? Json(nullptr) : Json("")},
      {"tool_calls",
       Json::array({{{"id", "call_1"}, {"type", "function"}, {"function", function}}})}};
  const auto prompt = chat_template.render(Json::array({user}), Json(nullptr), Json(nullptr), {});
  const auto whole = chat_template.render(Json::array({user, assistant}), Json(nullptr),
                                          Json(nullptr), {.add_generation_prompt = false});
  ASSERT_TRUE(prompt.ok() && whole.ok());
  ASSERT_TRUE(whole->starts_with(*prompt)) << *whole << "\n" << *prompt;
  std::string_view answer = std::string_view(*whole).substr(prompt->size());
  answer = answer.substr(0, answer.find(GetParam().answer_end));

  OutputParserOptions options;
  const auto format = choose_output_format("auto", "auto", &chat_template, tokenizer_with({}));
  ASSERT_TRUE(format.ok()) << format.error().message;
  options.format = *format;
  options.tool_choice = ToolChoice::kAuto;
  options.rendered_prompt = *prompt;
  const ParsedAnswer parsed = parse_answer(options, answer);
  ASSERT_EQ(parsed.calls.size(), 1U) << answer;
  EXPECT_EQ(parsed.calls[0].name, "get_weather");
  EXPECT_EQ(Json::parse(parsed.calls[0].arguments), arguments) << answer;
  EXPECT_EQ(parsed.num_open_escapes, 0);
  EXPECT_EQ(parsed.problems, "");
}

INSTANTIATE_TEST_SUITE_P(Published, OutputFormatRoundTrip,
                         testing::Values(RoundTrip{"qwen3", false, "<|im_end|>"},
                                         RoundTrip{"deepseek_v3", true, "<｜end▁of▁sentence｜>"},
                                         RoundTrip{"deepseek_v3_1", true, "<｜end▁of▁sentence｜>"},
                                         RoundTrip{"gptoss", false, "<|call|>"},
                                         RoundTrip{"kimi_k2", false, "<|im_end|>"}),
                         [](const auto& round_trip) { return round_trip.param.folder; });

}  // namespace
}  // namespace nanocp::api
