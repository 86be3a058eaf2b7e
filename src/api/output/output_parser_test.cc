#include "api/output_parser.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "api/output/output_test_support.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

// The result of parsing as text, and that cuts do not change it.
std::string parsed(const OutputParserOptions& options, std::string_view text) {
  const ParsedAnswer result = parse_answer(options, text);
  EXPECT_EQ(result.num_open_escapes, 0) << text;
  return result.str();
}

std::string answer(const std::string& content, const std::string& reasoning,
                   const std::vector<ParsedCall>& calls = {}) {
  return ParsedAnswer{.content = content, .reasoning = reasoning, .calls = calls}.str();
}

ParsedCall call(const std::string& name, const std::string& arguments) {
  return {.name = name, .arguments = arguments};
}

OutputParserOptions thinking(ReasoningFormat format, std::string_view prompt = {}) {
  OutputParserOptions options;
  options.format.reasoning = format;
  options.rendered_prompt = prompt;
  return options;
}

TEST(OutputParser, PassesTextOnWhereThereIsNothingToLookFor) {
  const std::string text = "<think> and <tool_call>{\"name\": \"f\"} \u00e9\u20ac\n";
  EXPECT_EQ(parsed({}, text), answer(text, ""));
  OutputParserOptions options = with_calls(ToolCallFormat::kHermes);
  options.tool_choice = ToolChoice::kNone;
  EXPECT_EQ(parsed(options, text), answer(text, "")) << "tool_choice none";
}

TEST(OutputParser, PartsThoughtsFromContent) {
  const auto options = thinking(ReasoningFormat::kThinkTags);
  EXPECT_EQ(parsed(options, "<think>\nLet me see.\n\n</think>\n\nIt is 4.\n"),
            answer("It is 4.\n", "Let me see."));
  EXPECT_EQ(parsed(options, "\n<think>a < b</th </think>c"), answer("c", "a < b</th "));
  EXPECT_EQ(parsed(options, "<think>\n\n</think>\n\nHi"), answer("Hi", ""));
  EXPECT_EQ(parsed(options, " No <think>thoughts</think>"),
            answer(" No <think>thoughts</think>", ""))
      << "only an answer's start";
  EXPECT_EQ(parsed(options, "<think>\nnot over\n"), answer("", "not over\n"));
  EXPECT_EQ(parsed(options, "<thin"), answer("<thin", ""));
  EXPECT_EQ(parsed(options, ""), answer("", ""));
}

TEST(OutputParser, KnowsWhatThePromptHasOpened) {
  const std::string text = "so it is</think>4";
  EXPECT_EQ(parsed(thinking(ReasoningFormat::kThinkTags, "<|im_start|>assistant\n<think>\n"), text),
            answer("4", "so it is"));
  EXPECT_EQ(parsed(thinking(ReasoningFormat::kThinkTags, "what is <think>?\nassistant"), text),
            answer(text, ""));
  EXPECT_EQ(parsed(thinking(ReasoningFormat::kThinkFirst), text), answer("4", "so it is"));
  EXPECT_EQ(parsed(thinking(ReasoningFormat::kThinkFirst), "<think>\n" + text),
            answer("4", "so it is"));
  EXPECT_EQ(parsed(thinking(ReasoningFormat::kThinkFirst, "assistant</think>"), "Hi"),
            answer("Hi", ""));
  const auto open = make_output_parser(thinking(ReasoningFormat::kThinkTags, "<think>"));
  EXPECT_TRUE(open->in_reasoning());
  static_cast<void>(open->push("a</think>b"));
  EXPECT_FALSE(open->in_reasoning());
}

TEST(OutputParser, ReadsHermesCalls) {
  const auto options = with_calls(ToolCallFormat::kHermes, ReasoningFormat::kThinkTags);
  EXPECT_EQ(parsed(options,
                   "<think>\nweather\n</think>\n\nI look.\n<tool_call>\n"
                   "{\"name\": \"get\", \"arguments\": {\"city\": \"S\u00e3o \\u00e9 \\\"}\\\" "
                   "\\ud83d\\ude00 </tool_call>\", \"n\": [1, {}]}}\n</tool_call>\n<tool_call>\n"
                   "{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"),
            answer("I look.", "weather",
                   {call("get",
                         "{\"city\": \"S\u00e3o \\u00e9 \\\"}\\\" \\ud83d\\ude00 "
                         "</tool_call>\", \"n\": [1, {}]}"),
                    call("now", "{}")}));
  // Other orders, other members, no arguments.
  EXPECT_EQ(parsed(options,
                   "<tool_call>{\"id\": 3, \"arguments\": {\"a\": \"{\"}, \"name\": "
                   "\"f\\u0061\"}</tool_call>"),
            answer("", "", {call("fa", "{\"a\": \"{\"}")}));
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\":\"f\"}</tool_call> done"),
            answer("done", "", {call("f", "{}")}));
  EXPECT_EQ(
      parsed(options, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1},\"x\":{}}</tool_call>"),
      answer("", "", {call("f", "{\"a\":1}")}));
}

TEST(OutputParser, WhatIsNoHermesCallIsContentWordForWord) {
  const auto options = with_calls(ToolCallFormat::kHermes);
  for (const std::string text :
       {"a \n<tool_call>\nnot JSON</tool_call>", "<tool_call>{\"name\": 3}</tool_call>",
        "<tool_call>{\"name\": \"\", \"arguments\": {}}",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"f\", \"arguments\": \"{}\"}</tool_call>", "x <tool_call>",
        "<tool_call>{\"name\": \"f", "</tool_call>", "<tool_cal", "tail \n\n "}) {
    EXPECT_EQ(parsed(options, text), answer(text, ""));
  }
  const std::string nested = "<tool_call>\n";
  EXPECT_EQ(parsed(options, nested + "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"),
            answer("<tool_call>", "", {call("f", "{}")}));
}

TEST(OutputParser, ArgumentsThatBreakArePassedOnAsTheyAre) {
  const auto options = with_calls(ToolCallFormat::kHermes);
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1"),
            answer("", "", {call("f", "{\"a\": [1")}));
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\": \"f\", \"arguments\": {a: 1 <</tool_call>then"),
            answer("then", "", {call("f", "{a: 1 <")}));
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\":1}\n</tool_call>b"),
            answer("b", "", {call("f", "{\"a\":1}")}))
      << "the outer bracket is missing";
  EXPECT_EQ(parsed(options, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": \"\\ud83d"),
            answer("", "", {call("f", "{\"a\": \"\\ud83d")}));
}

TEST(OutputParser, ReadsDeepseekCalls) {
  const auto v3 = with_calls(ToolCallFormat::kDeepseekV3, ReasoningFormat::kThinkFirst);
  EXPECT_EQ(parsed(v3,
                   "hm\n</think>\n\nI look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
                   "<｜tool▁sep｜>get\n```json\n{\"c\": \"`` ` \"}\n```<｜tool▁call▁end｜>\n"
                   "<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
                   "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"),
            answer("I look.", "hm", {call("get", "{\"c\": \"`` ` \"}"), call("now", "{}")}));
  const auto v31 = with_calls(ToolCallFormat::kDeepseekV31);
  EXPECT_EQ(parsed(v31,
                   "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get<｜tool▁sep｜>{\"c\": 1} "
                   "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜><｜tool▁call▁end｜>"
                   "<｜tool▁calls▁end｜>"),
            answer("", "", {call("get", "{\"c\": 1}"), call("now", "{}")}));
  EXPECT_EQ(parsed(v31, "<｜tool▁call▁begin｜>get<｜tool▁sep｜>{\"c\": 1"),
            answer("", "", {call("get", "{\"c\": 1")}));
  const std::string bad = "x<｜tool▁call▁begin｜>get<｜tool▁sep｜>c = 1<｜tool▁call▁end｜>";
  EXPECT_EQ(parsed(v31, bad), answer(bad, ""));
}

TEST(OutputParser, ReadsKimiCallsWithTheirIds) {
  const auto options = with_calls(ToolCallFormat::kKimiK2);
  const ParsedAnswer result = parse_answer(
      options,
      "Sure. <|tool_calls_section_begin|><|tool_call_begin|>functions.get_it:0"
      "<|tool_call_argument_begin|>{\"a\": {\"b\": 2}}<|tool_call_end|><|tool_call_begin|>"
      "functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>");
  EXPECT_EQ(result.str(),
            answer("Sure.", "", {call("get_it", "{\"a\": {\"b\": 2}}"), call("now", "{}")}));
  ASSERT_EQ(result.calls.size(), 2U);
  EXPECT_EQ(result.calls[0].id, "functions.get_it:0");
  EXPECT_EQ(result.calls[1].id, "functions.now:1");
  const std::string bad = "<|tool_call_begin|>functions.f:0 {}<|tool_call_end|>";
  EXPECT_EQ(parsed(options, bad), answer(bad, ""));
}

TEST(OutputParser, ReadsMistralCalls) {
  const auto options = with_calls(ToolCallFormat::kMistral);
  const ParsedAnswer list =
      parse_answer(options,
                   "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": \"]\"}}, "
                   "{\"arguments\": {}, \"name\": \"g\", \"id\": \"123456789\"}]");
  EXPECT_EQ(list.str(), answer("", "", {call("f", "{\"a\": \"]\"}"), call("g", "{}")}));
  ASSERT_EQ(list.calls.size(), 2U);
  EXPECT_EQ(list.calls[0].id.size(), 9U);
  EXPECT_NE(list.calls[0].id, list.calls[1].id);
  EXPECT_EQ(
      parsed(options,
             "I do.[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g[CALL_ID]abc[ARGS]{}"
             "[TOOL_CALLS]h{\"b\": {}}"),
      answer("I do.", "", {call("f", "{\"a\": 1}"), call("g", "{}"), call("h", "{\"b\": {}}")}));
  for (const std::string bad :
       {"[TOOL_CALLS] []", "[TOOL_CALLS] [1]", "[TOOL_CALLS]a b{}", "[TOOL"}) {
    EXPECT_EQ(parsed(options, bad), answer(bad, ""));
  }
}

const Json kTypedTools = Json::parse(R"([{"type": "function", "function": {"name": "f",
  "parameters": {"type": "object", "properties": {"s": {"type": "string"},
  "m": {"type": ["string", "null"]}, "n": {"type": "integer"}, "e": {"enum": ["1", "2"]},
  "o": {"anyOf": [{"type": "string"}, {"type": "number"}]}}}}}])");

TEST(OutputParser, ReadsGlmCalls) {
  auto options = with_calls(ToolCallFormat::kGlm45, ReasoningFormat::kThinkTags);
  options.tools = &kTypedTools;
  EXPECT_EQ(
      parsed(
          options,
          "\n<think>think</think>\nOn it.\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>12 \"q\" "
          "\\ \u20ac\n</arg_value>\n<arg_key>n</arg_key>\n<arg_value>12</arg_value>\n"
          "<arg_key>m</arg_key>\n<arg_value>null</arg_value>\n<arg_key>e</arg_key>\n"
          "<arg_value>2</arg_value>\n<arg_key>o</arg_key>\n<arg_value>1.5</arg_value>\n"
          "<arg_key>free</arg_key>\n<arg_value>[1, \"x\"]</arg_value>\n</tool_call>"
          "<tool_call>g</tool_call><tool_call>g\n<arg_key>k</arg_key>"
          "<arg_value>a b</arg_value></tool_call>"),
      answer("On it.", "think",
             {call("f",
                   "{\"s\": \"12 \\\"q\\\" \\\\ \u20ac\\n\", \"n\": 12, \"m\": null, "
                   "\"e\": \"2\", \"o\": 1.5, \"free\": [1, \"x\"]}"),
              call("g", "{}"), call("g", "{\"k\": \"a b\"}")}));
  EXPECT_EQ(parsed(options, "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>unfinis"),
            answer("", "", {call("f", "{\"s\": \"unfinis")}));
  for (const std::string bad : {"<tool_call>{\"name\": \"f\"}</tool_call>",
                                "<tool_call>a b\n<arg_key>", "<tool_call>f", "<tool_call>f<x>"}) {
    EXPECT_EQ(parsed(options, bad), answer(bad, ""));
  }
}

TEST(OutputParser, ReadsQwenCoderCalls) {
  auto options = with_calls(ToolCallFormat::kQwen3Coder);
  options.tools = &kTypedTools;
  EXPECT_EQ(parsed(options,
                   "I write.\n\n<tool_call>\n<function=f>\n<parameter=s>\nline 1\n\nline </x>\n\n"
                   "</parameter>\n<parameter=n>\n7\n</parameter>\n<parameter=free>\nTrue\n"
                   "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n"
                   "</function>\n</tool_call>"),
            answer("I write.", "",
                   {call("f", "{\"s\": \"line 1\\n\\nline </x>\\n\", \"n\": 7, \"free\": true}"),
                    call("now", "{}")}));
  EXPECT_EQ(parsed(options, "<function=f>\n<parameter=n>\nseven\n</parameter>\n</function>"),
            answer("", "", {call("f", "{\"n\": \"seven\"}")}))
      << "without the outer tag";
  const std::string bad = "<tool_call>\n{\"name\": \"f\"}\n</tool_call>";
  EXPECT_EQ(parsed(options, bad), answer(bad, ""));
}

TEST(OutputParser, ReadsHarmonyChannels) {
  auto options = with_calls(ToolCallFormat::kHarmony, ReasoningFormat::kHarmony);
  options.rendered_prompt = "<|start|>user<|message|>?<|end|><|start|>assistant";
  EXPECT_EQ(parsed(options,
                   "<|channel|>analysis<|message|>Need 2+2.<|end|><|start|>assistant"
                   "<|channel|>final<|message|>It is 4 < 5."),
            answer("It is 4 < 5.", "Need 2+2."));
  EXPECT_EQ(
      parsed(options,
             "<|channel|>analysis<|message|>Look.<|end|><|start|>assistant<|channel|>"
             "commentary<|message|>I look it up.<|end|><|start|>assistant<|channel|>commentary "
             "to=functions.get <|constrain|>json<|message|>{\"c\": \"\\u00e9\"}<|call|>"
             "<|start|>assistant to=functions.now<|channel|>commentary json<|message|>"),
      answer("I look it up.", "Look.", {call("get", "{\"c\": \"\\u00e9\"}"), call("now", "{}")}));
  EXPECT_EQ(parsed(options, " to=functions.f<|channel|>commentary json<|message|>{\"a\": 1"),
            answer("", "", {call("f", "{\"a\": 1")}));
  EXPECT_EQ(parsed(options, "<|channel|>analysis to=python code<|message|>1+1<|call|>"),
            answer("", "1+1"))
      << "a tool that nobody runs";
  EXPECT_EQ(parsed(options,
                   "<|channel|>analysis<|message|>a<|end|><|channel|>analysis<|message|>b"
                   "<|start|>assistant<|channel|>final<|message|>c<|return|>d"),
            answer("c\nd", "a\nb"));
  EXPECT_EQ(parsed(options, "plain text"), answer("plain text", ""));
  options.rendered_prompt = "<|start|>assistant<|channel|>final<|message|>It is";
  EXPECT_EQ(parsed(options, " 4."), answer(" 4.", "")) << "a message that the prompt has begun";
  const auto parser = make_output_parser(options);
  EXPECT_FALSE(parser->in_reasoning());
}

TEST(OutputParser, ForcedChoicesTurnContentIntoCalls) {
  auto options = with_calls(ToolCallFormat::kHermes, ReasoningFormat::kThinkTags);
  options.tool_choice = ToolChoice::kNamed;
  options.named_tool = "f";
  EXPECT_EQ(parsed(options, "<think>\nhm</think>\n\n{\"a\": \"\\n\"}"),
            answer("", "hm", {call("f", "{\"a\": \"\\n\"}")}));
  EXPECT_EQ(parsed(options, "<think>hm"), answer("", "hm"));
  options.tool_choice = ToolChoice::kRequired;
  const std::string list =
      "[{\"name\": \"f\", \"parameters\": {\"a\": 1}}, {\"name\": \"g\", \"parameters\": {}}]";
  EXPECT_EQ(parsed(options, list), answer("", "", {call("f", "{\"a\": 1}"), call("g", "{}")}));
  options.parallel_tool_calls = false;
  EXPECT_EQ(parsed(options, list), answer("", "", {call("f", "{\"a\": 1}")}));
  options.format = {.reasoning = ReasoningFormat::kHarmony, .tool_calls = ToolCallFormat::kHarmony};
  EXPECT_EQ(parsed(options,
                   "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final"
                   "<|message|>" +
                       list),
            answer("", "x", {call("f", "{\"a\": 1}")}));

  const Json schema = forced_tool_schema(kTypedTools, "");
  EXPECT_EQ(schema["items"]["anyOf"][0]["properties"]["name"]["const"], "f");
  EXPECT_EQ(forced_tool_schema(kTypedTools, "f"), kTypedTools[0]["function"]["parameters"]);
}

TEST(OutputParser, IdsAreDrawnFromTheSeed) {
  const std::string text =
      "<tool_call>{\"name\": \"f\"}</tool_call><tool_call>{\"name\": \"f\"}</tool_call>";
  std::set<std::string> ids;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    auto options = with_calls(ToolCallFormat::kHermes);
    options.id_seed = seed;
    const auto parser = make_output_parser(options);
    for (const ToolCallDelta& delta : parser->push(text).tool_calls) {
      EXPECT_TRUE(delta.id.starts_with("call_")) << delta.id;
      EXPECT_EQ(delta.id.size(), 29U);
      ids.insert(delta.id);
    }
  }
  EXPECT_EQ(ids.size(), 100U);
}

TEST(OutputParser, HoldsBackNoMoreThanItSays) {
  const std::string filler(3 * OutputParser::kHeldBytesMax, 'x');
  auto glm = with_calls(ToolCallFormat::kGlm45);
  const std::string start = "<tool_call>g\n<arg_key>k</arg_key>\n<arg_value>";
  const auto in_thousands = [](size_t) { return size_t{1000}; };
  const ParsedAnswer long_value =
      parse_in_pieces(glm, start + filler + "</arg_value></tool_call>", in_thousands);
  EXPECT_EQ(long_value.str(), answer("", "", {call("g", "{\"k\": \"" + filler + "\"}")}));

  for (const auto& [format, opening] : std::vector<std::pair<ToolCallFormat, std::string>>{
           {ToolCallFormat::kHermes, "<tool_call>{\"a\": \""},
           {ToolCallFormat::kGlm45, "<tool_call>"},
           {ToolCallFormat::kGlm45, start},
           {ToolCallFormat::kDeepseekV3, "<｜tool▁call▁begin｜>"},
           {ToolCallFormat::kKimiK2, "<|tool_call_begin|>"},
           {ToolCallFormat::kMistral, "[TOOL_CALLS]"},
           {ToolCallFormat::kMistral, "[TOOL_CALLS][{\""},
           {ToolCallFormat::kQwen3Coder, "<function="},
           {ToolCallFormat::kHarmony, "<|channel|>"}}) {
    const auto parser = make_output_parser(with_calls(format));
    static_cast<void>(parser->push(opening));
    size_t num_held = 0;
    for (size_t i = 0; i < filler.size(); i += 64) {
      const OutputDelta delta = parser->push(std::string_view(filler).substr(i, 64));
      num_held = delta.empty() ? num_held + 64 : 0;
      ASSERT_LE(num_held, OutputParser::kHeldBytesMax) << opening;
    }
  }
}

const std::vector<std::string> kPieces = {"<tool_call>",
                                          "</tool_call>",
                                          "<function=",
                                          "f>",
                                          "<parameter=",
                                          "a>",
                                          "</parameter>",
                                          "</function>",
                                          "{\"name\": \"f\", ",
                                          "\"arguments\": ",
                                          "{\"a\": \"",
                                          "\\",
                                          "\\ud83d",
                                          "\\ude00",
                                          "\"",
                                          "}",
                                          "}}",
                                          "[",
                                          "]",
                                          ",",
                                          " ",
                                          "\n",
                                          "<think>",
                                          "</think>",
                                          "<｜tool▁call▁begin｜>",
                                          "<｜tool▁sep｜>",
                                          "<｜tool▁call▁end｜>",
                                          "<｜tool▁calls▁begin｜>",
                                          "```json\n",
                                          "```",
                                          "<|tool_call_begin|>",
                                          "functions.f:0",
                                          "<|tool_call_argument_begin|>",
                                          "<|tool_call_end|>",
                                          "f",
                                          "<arg_key>",
                                          "</arg_key>",
                                          "<arg_value>",
                                          "</arg_value>",
                                          "null",
                                          "[TOOL_CALLS]",
                                          "[ARGS]",
                                          "<|start|>",
                                          "assistant",
                                          "<|channel|>",
                                          "analysis",
                                          "final",
                                          " to=functions.f",
                                          "<|message|>",
                                          "<|end|>",
                                          "<|call|>",
                                          "\u20ac",
                                          "<",
                                          "function"};

// Texts put together from pieces of all formats: nothing that a model writes breaks a parser, and
// cuts never matter.
TEST(OutputParser, SurvivesAnyMixtureOfMarkers) {
  Random random(11);
  for (int round = 0; round < 400; ++round) {
    std::string text;
    for (uint64_t i = random.below(24); i > 0; --i) text += kPieces[random.below(kPieces.size())];
    auto options = with_calls(static_cast<ToolCallFormat>(random.below(9)),
                              static_cast<ReasoningFormat>(random.below(4)));
    options.tools = random.below(2) == 0 ? &kTypedTools : nullptr;
    options.tool_choice = static_cast<ToolChoice>(random.below(4));
    options.named_tool = "f";
    ASSERT_EQ(parse_answer(options, text).problems, "") << "round " << round << ": " << text;
  }
}

}  // namespace
}  // namespace nanocp::api
