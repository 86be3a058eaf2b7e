// What shapes an answer besides sampling: tools, structured output, and the smaller endpoints.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/generation_config.h"
#include "api/generation_request.h"
#include "api/model_list.h"
#include "api/response_writer.h"
#include "api/test_context.h"
#include "api/token_requests.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;
using grammar::ResponseFormat;
using Kind = ResponseFormat::Kind;

class AnyConstraint final : public request::TokenConstraint {
 public:
  std::unique_ptr<request::ConstraintState> start() const override { return nullptr; }
};

// The tests' model with the given template, and a compiler that keeps what it is asked for.
struct Served {
  explicit Served(const std::string& source, OutputFormat format = {})
      : chat_template(text::ChatTemplate::from_string(source, "t", {}).value()),
        context(test_context()) {
    context.chat_template = &chat_template;
    context.output_format = format;
    context.compile_format = [this](const ResponseFormat& wanted)
        -> Result<std::shared_ptr<const request::TokenConstraint>> {
      if (wanted.text.find("bad") != std::string::npos) return invalid_argument("/type: is bad");
      formats.push_back(wanted);
      return std::shared_ptr<const request::TokenConstraint>(std::make_shared<AnyConstraint>());
    };
  }

  ApiResult<GenerationRequest> chat(const std::string& fields) const {
    return parse_chat_completion(json("{'messages':[{'role':'user','content':'x'}]" + fields + "}"),
                                 context);
  }
  std::string prompt(const std::string& body) const {
    auto result = parse_chat_completion(json(body), context);
    if (const ApiError* error = error_of(result)) return "error: " + error->message;
    const auto& request = std::get<GenerationRequest>(result).requests[0];
    return context.tokenizer->decode(request.prompt, false);
  }
  std::string error(const std::string& fields) const {
    auto result = chat(fields);
    const ApiError* error = error_of(result);
    return error == nullptr ? "accepted" : error->param + "|" + error->message;
  }

  text::ChatTemplate chat_template;
  ModelContext context;
  mutable std::vector<ResponseFormat> formats;
};

constexpr const char* kPlain = "{{ messages[-1].content }}";
constexpr const char* kTools =
    ",'tools':[{'type':'function','function':{'name':'f','parameters':{'type':'object',"
    "'properties':{'a':{'type':'integer'}}}}}]";

TEST(Forms, EveryFieldBecomesAFormat) {
  const std::pair<const char*, ResponseFormat> cases[] = {
      {"'response_format':{'type':'json_object'}", {.kind = Kind::kJsonObject}},
      {"'response_format':{'type':'json_schema','json_schema':{'name':'n','strict':true,"
       "'schema':{'type':'object','required':['b','a']}}}",
       {.kind = Kind::kJsonSchema, .text = R"({"type":"object","required":["b","a"]})"}},
      {"'guided_json':{'type':'null'}", {.kind = Kind::kJsonSchema, .text = R"({"type":"null"})"}},
      {"'guided_regex':'a+'", {.kind = Kind::kRegex, .text = "a+"}},
      {"'guided_choice':['x','y']", {.kind = Kind::kChoice, .choices = {"x", "y"}}},
      {"'guided_grammar':'root ::= \\\\n'", {.kind = Kind::kGrammar, .text = "root ::= \\n"}},
      {"'structured_outputs':{'regex':'b'}", {.kind = Kind::kRegex, .text = "b"}},
      {"'structured_outputs':{'json_object':true}", {.kind = Kind::kJsonObject}},
  };
  for (const auto& [field, format] : cases) {
    const Served served(kPlain);
    const auto result = served.chat(std::string(",") + field);
    ASSERT_EQ(error_of(result), nullptr) << field << error_of(result)->message;
    ASSERT_EQ(served.formats.size(), 1U) << field;
    EXPECT_EQ(served.formats[0], format) << field << " " << served.formats[0].text;
    EXPECT_NE(std::get<GenerationRequest>(result).requests[0].constraint, nullptr);
  }
  const Served served(kPlain);
  EXPECT_EQ(error_of(served.chat(",'response_format':{'type':'text'}")), nullptr);
  EXPECT_TRUE(served.formats.empty());
}

TEST(Forms, ErrorsNameTheField) {
  const Served served(kPlain);
  EXPECT_EQ(served.error(",'response_format':{'type':'xml'}"),
            "response_format.type|response_format.type must be \"text\", \"json_object\" or "
            "\"json_schema\"");
  EXPECT_EQ(served.error(",'guided_json':{'type':'bad'}"),
            "guided_json|guided_json: /type: is bad");
  EXPECT_EQ(served.error(",'guided_regex':'a','guided_choice':['b']"),
            "guided_regex|guided_choice and guided_regex both say what form the answer has: give "
            "one");
  EXPECT_EQ(served.error(",'structured_outputs':{'structural_tag':'x'}"),
            "structured_outputs.structural_tag|structured_outputs.structural_tag is not supported");
  EXPECT_EQ(served.error(",'guided_regex':'" + std::string(300000, 'a') + "'"),
            "guided_regex|guided_regex has 300000 bytes, the limit is 262144");
}

TEST(Tools, AreShownToTheModelUnlessTheyMayNotBeCalled) {
  const Served served("{{ tools | length if tools else 'none' }}");
  const auto prompt = [&](const std::string& fields) {
    return served.prompt("{'messages':[{'role':'user','content':'x'}]" + fields + "}");
  };
  EXPECT_EQ(prompt(""), "none");
  EXPECT_EQ(prompt(kTools), "1");
  EXPECT_EQ(prompt(std::string(kTools) + ",'tool_choice':'auto'"), "1");
  EXPECT_EQ(prompt(std::string(kTools) + ",'tool_choice':'none'"), "none");
}

TEST(Tools, AForcedChoiceConstrainsTheAnswer) {
  const Served served(kPlain, {.tool_calls = ToolCallFormat::kHermes});
  const std::string named = ",'tool_choice':{'type':'function','function':{'name':'f'}}";
  ASSERT_EQ(error_of(served.chat(std::string(kTools) + named)), nullptr);
  ASSERT_EQ(served.formats.size(), 1U);
  EXPECT_EQ(Json::parse(served.formats[0].text)["properties"]["a"]["type"], "integer");
  ASSERT_EQ(error_of(served.chat(std::string(kTools) + ",'tool_choice':'required'")), nullptr);
  EXPECT_EQ(Json::parse(served.formats.at(1).text)["type"], "array");
  ASSERT_EQ(error_of(served.chat(std::string(kTools) +
                                 ",'tool_choice':'required','parallel_tool_calls':false")),
            nullptr);
  EXPECT_EQ(Json::parse(served.formats.at(2).text)["maxItems"], 1);
  EXPECT_EQ(served.error(std::string(kTools) +
                         ",'tool_choice':{'type':'function','function':{'name':'g'}}"),
            "tool_choice.function.name|tool_choice.function.name is none of the tools");
}

TEST(Tools, ArgumentsOfEarlierCallsSuitEitherKindOfTemplate) {
  const std::string body =
      "{'messages':[{'role':'assistant','tool_calls':[{'type':'function','function':{'name':'f',"
      "'arguments':'{\\'a\\': 1}'}}]}]}";
  const std::string call = "messages[0].tool_calls[0].function.arguments";
  EXPECT_EQ(Served("{{ " + call + " | tojson }}").prompt(body), "{\"a\": 1}");
  EXPECT_EQ(Served("{{ 'args: ' + " + call + " }}").prompt(body), "args: {\"a\":1}")
      << "glued to text";
}

TEST(Tools, CallsComeOutOfTheAnswer) {
  const Served served(kPlain, {.tool_calls = ToolCallFormat::kHermes});
  for (const bool stream : {false, true}) {
    auto request = served.chat(std::string(kTools) + (stream ? ",'stream':true" : ""));
    ResponseWriter writer(std::move(std::get<GenerationRequest>(request).output), served.context,
                          {.id = "x"});
    std::string out;
    const std::string text =
        "Well.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    const std::vector<TokenId> tokens = served.context.tokenizer->encode(text, true);
    for (size_t i = 0; i < tokens.size(); ++i) {
      engine::TokenEvent event;
      event.token = tokens[i];
      if (i + 1 == tokens.size()) event.finish_reason = request::FinishReason::kStop;
      writer.push(0, event, out);
    }
    writer.finish(out);
    if (stream) {
      EXPECT_NE(out.find("\"finish_reason\":\"tool_calls\""), std::string::npos) << out;
      continue;
    }
    const Json choice = Json::parse(out)["choices"][0];
    EXPECT_EQ(choice["finish_reason"], "tool_calls");
    EXPECT_EQ(choice["message"]["content"], "Well.");
    const Json& call = choice["message"]["tool_calls"].at(0);
    EXPECT_EQ(call["type"], "function");
    EXPECT_EQ(call["function"]["name"], "f");
    EXPECT_EQ(Json::parse(call["function"]["arguments"].get<std::string>()), Json({{"a", 1}}));
    EXPECT_FALSE(call["id"].get<std::string>().empty());
  }
}

TEST(Tokenize, CountsAndTurnsBack) {
  const auto tokenized = answer_tokenize(
      json("{'model':'tiny','prompt':'Hello','return_token_strs':true}"), test_context());
  const Json result = Json::parse(std::get<std::string>(tokenized));
  EXPECT_EQ(result["count"], result["tokens"].size());
  EXPECT_EQ(result["count"], result["token_strs"].size());
  EXPECT_EQ(result["max_model_len"], 256);
  const auto text = answer_detokenize(Json{{"tokens", result["tokens"]}}.dump(), test_context());
  EXPECT_EQ(std::get<std::string>(text), "{\"prompt\":\"Hello\"}");
  const auto chat =
      answer_tokenize(json("{'messages':[{'role':'user','content':'Hello'}]}"), test_context());
  EXPECT_GT(Json::parse(std::get<std::string>(chat))["count"], result["count"]);
  EXPECT_EQ(error_of(answer_tokenize("{}", test_context()))->param, "prompt");
  EXPECT_EQ(error_of(answer_detokenize(json("{'tokens':[512]}"), test_context()))->param,
            "tokens[0]");
}

TEST(Models, AreListedByEveryName) {
  const Json list = Json::parse(list_models(test_context()));
  ASSERT_EQ(list["data"].size(), 2U);
  EXPECT_EQ(list["data"][1]["id"], "alias");
  EXPECT_EQ(list["data"][1]["root"], "tiny");
  EXPECT_EQ(list["data"][0]["max_model_len"], 256);
  EXPECT_EQ(error_of(describe_model("alias", test_context())), nullptr);
  EXPECT_EQ(error_of(describe_model("other", test_context()))->status, 404);
}

TEST(GenerationConfig, SetsDefaults) {
  const auto defaults = parse_sampling_defaults(
      R"({"temperature": 0.6, "top_k": 20, "top_p": 0.95, "max_new_tokens": 100, "x": []})", "f");
  ASSERT_TRUE(defaults.ok()) << defaults.error().message;
  ModelContext context = test_context();
  context.defaults = *defaults;
  const auto result = parse_chat_completion(
      json("{'messages':[{'role':'user','content':'x'}],'top_k':-1}"), context);
  const request::Request& request = std::get<GenerationRequest>(result).requests[0];
  EXPECT_EQ(request.sampling.temperature, 0.6F);
  EXPECT_EQ(request.sampling.top_p, 0.95F);
  EXPECT_EQ(request.sampling.top_k, 0) << "the request's own";
  EXPECT_EQ(request.max_tokens, 100);
  EXPECT_EQ(parse_sampling_defaults(R"({"top_p": 2})", "f").error().message,
            "f: top_p is out of its range");
  EXPECT_TRUE(load_sampling_defaults("tests/fixtures/tiny_chat").ok());
  EXPECT_TRUE(load_sampling_defaults("models").ok()) << "no such file";
}

}  // namespace
}  // namespace nanocp::api
