// Bodies of both endpoints: what they mean, and what is refused with which field and words.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "api/generation_request.h"
#include "api/test_context.h"

namespace nanocp::api {
namespace {

constexpr const char* kHello = "'messages':[{'role':'user','content':'Hello'}]";

GenerationRequest chat(const std::string& fields) {
  auto result = parse_chat_completion(json("{" + fields + "}"), test_context());
  if (const ApiError* error = error_of(result)) {
    ADD_FAILURE() << fields << ": " << error->message;
    return {};
  }
  return std::move(std::get<GenerationRequest>(result));
}

GenerationRequest completion(const std::string& fields) {
  auto result = parse_completion(json("{" + fields + "}"), test_context());
  if (const ApiError* error = error_of(result)) {
    ADD_FAILURE() << fields << ": " << error->message;
    return {};
  }
  return std::move(std::get<GenerationRequest>(result));
}

ApiError chat_error(const std::string& fields) {
  auto result = parse_chat_completion(json("{" + fields + "}"), test_context());
  if (const ApiError* error = error_of(result)) return *error;
  ADD_FAILURE() << fields << " was accepted";
  return {};
}

ApiError completion_error(const std::string& fields) {
  auto result = parse_completion(json("{" + fields + "}"), test_context());
  if (const ApiError* error = error_of(result)) return *error;
  ADD_FAILURE() << fields << " was accepted";
  return {};
}

std::string text_of(const std::vector<TokenId>& tokens) {
  return test_context().tokenizer->decode(tokens, false);
}

TEST(ChatRequest, DefaultsAreThoseOfTheApi) {
  const GenerationRequest request = chat(kHello);
  ASSERT_EQ(request.requests.size(), 1U);
  const request::Request& only = request.requests[0];
  EXPECT_EQ(text_of(only.prompt), "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(only.max_tokens, 256 - static_cast<int32_t>(only.prompt.size())) << "what fits";
  EXPECT_EQ(only.sampling.temperature, 1.0F);
  EXPECT_EQ(only.sampling.top_p, 1.0F);
  EXPECT_EQ(only.sampling.num_logprobs, -1);
  EXPECT_TRUE(only.draw_seed);
  EXPECT_FALSE(request.output.stream);
  EXPECT_EQ(request.output.prompts[0].num_tokens, static_cast<int64_t>(only.prompt.size()));
  EXPECT_TRUE(request.warnings.empty());
}

TEST(ChatRequest, ReadsEverySamplingField) {
  const GenerationRequest request = chat(
      std::string(kHello) +
      ",'model':'alias','temperature':0.5,'top_p':0.25,'top_k':7,'min_p':0.125,"
      "'repetition_penalty':1.5,'presence_penalty':-1,'frequency_penalty':2,'seed':-3,"
      "'logit_bias':{'17':-100,'18':1.5},'logprobs':true,'top_logprobs':3,'stop':['a','b'],"
      "'stop_token_ids':[5,6],'ignore_eos':true,'min_tokens':2,'max_completion_tokens':9,"
      "'max_tokens':4,'include_stop_str_in_output':true,'skip_special_tokens':false,'priority':-2,"
      "'stream':true,'stream_options':{'include_usage':true,'continuous_usage_stats':true},"
      "'return_token_ids':true,'user':'u','metadata':{},'store':true,'n':1,'best_of':1");
  const request::Request& only = request.requests.at(0);
  const SamplingParams& sampling = only.sampling;
  EXPECT_EQ(sampling.temperature, 0.5F);
  EXPECT_EQ(sampling.top_p, 0.25F);
  EXPECT_EQ(sampling.top_k, 7);
  EXPECT_EQ(sampling.min_p, 0.125F);
  EXPECT_EQ(sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(sampling.presence_penalty, -1.0F);
  EXPECT_EQ(sampling.frequency_penalty, 2.0F);
  EXPECT_EQ(sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_FALSE(only.draw_seed);
  EXPECT_EQ(sampling.logit_bias,
            (std::vector<std::pair<TokenId, float>>{{17, -100.0F}, {18, 1.5F}}));
  EXPECT_EQ(sampling.num_logprobs, 3);
  EXPECT_EQ(only.stop_token_ids, (std::vector<TokenId>{5, 6}));
  EXPECT_TRUE(only.ignore_eos);
  EXPECT_EQ(only.min_tokens, 2);
  EXPECT_EQ(only.max_tokens, 9) << "max_completion_tokens goes before max_tokens";
  EXPECT_EQ(only.priority, -2);
  const OutputOptions& output = request.output;
  EXPECT_EQ(output.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_TRUE(output.include_stop && !output.skip_special_tokens && output.stream);
  EXPECT_TRUE(output.include_usage && output.continuous_usage && output.return_token_ids);
  EXPECT_EQ(output.prompts.at(0).token_ids, only.prompt);
  EXPECT_TRUE(request.warnings.empty()) << request.warnings[0];
}

TEST(ChatRequest, NullMeansAbsentAndUnknownFieldsWarnOnce) {
  const GenerationRequest request = chat(
      std::string(kHello) + ",'temperature':null,'stop':null,'tools':null,'n':null,'x':1,'y':2");
  EXPECT_EQ(request.requests[0].sampling.temperature, 1.0F);
  EXPECT_EQ(request.warnings, std::vector<std::string>{"ignored unknown fields 'x', 'y'"});
}

TEST(ChatRequest, ChoicesHaveSeedsOfTheirOwn) {
  const GenerationRequest request = chat(std::string(kHello) + ",'n':3,'seed':10");
  ASSERT_EQ(request.requests.size(), 3U);
  for (uint64_t i = 0; i < 3; ++i) EXPECT_EQ(request.requests[i].sampling.seed, 10 + i);
}

TEST(ChatRequest, MessagesTakeTheFormThatTemplatesExpect) {
  const GenerationRequest request = chat(
      "'messages':[{'role':'developer','content':'Rules'},{'role':'user','content':"
      "[{'type':'text','text':'A'},{'type':'text','text':'B'}]}]");
  EXPECT_EQ(text_of(request.requests[0].prompt),
            "<|im_start|>system\nRules<|im_end|>\n<|im_start|>user\nA\nB<|im_end|>\n"
            "<|im_start|>assistant\n")
      << "the template does not know the role developer";
}

TEST(ChatRequest, ContinuesTheFinalMessage) {
  const std::string messages =
      "'messages':[{'role':'user','content':'Hi'},{'role':'assistant','content':'Once upon '}]";
  EXPECT_EQ(text_of(chat(messages + ",'continue_final_message':true").requests[0].prompt),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nOnce upon ");
  EXPECT_EQ(text_of(chat(messages + ",'add_generation_prompt':false").requests[0].prompt),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nOnce upon <|im_end|>\n");
  EXPECT_EQ(
      chat_error(messages + ",'continue_final_message':true,'add_generation_prompt':true").param,
      "continue_final_message");
}

struct BadField {
  const char* fields;
  const char* param;
  const char* message;
};

TEST(ChatRequest, ErrorsNameTheField) {
  const BadField kCases[] = {
      {"'temperature':'hot'", "temperature", "temperature must be a number, not a string"},
      {"'temperature':-1", "temperature", "temperature must be between 0 and 1e+09, not -1"},
      {"'top_p':0", "top_p", "top_p must be between 1e-06 and 1, not 0"},
      {"'top_k':1.5", "top_k", "top_k must be an integer, not a number with a fraction"},
      {"'n':0", "n", "n must be between 1 and 128, not 0"},
      {"'n':18446744073709551615", "n", "n must be between 1 and 128, not 18446744073709551615"},
      {"'n':2,'best_of':3", "best_of",
       "best_of must be n (2) or absent: choosing the best of more answers is not supported"},
      {"'presence_penalty':2.5", "presence_penalty",
       "presence_penalty must be between -2 and 2, not 2.5"},
      {"'stop':['a','']", "stop[1]", "stop[1] must not be empty"},
      {"'stop':[1]", "stop[0]", "stop[0] must be a string, not an integer"},
      {"'stop_token_ids':[512]", "stop_token_ids[0]",
       "stop_token_ids[0] must be between 0 and 511, not 512"},
      {"'logit_bias':{'x':1}", "logit_bias",
       "logit_bias has the member 'x', which is no token id between 0 and 511"},
      {"'logit_bias':{'3':101}", "logit_bias.3",
       "logit_bias.3 must be between -100 and 100, not 101"},
      {"'top_logprobs':2", "top_logprobs", "top_logprobs needs \"logprobs\": true"},
      {"'logprobs':true,'top_logprobs':21", "top_logprobs",
       "top_logprobs must be between 0 and 20, not 21"},
      {"'stream_options':{}", "stream_options",
       "stream_options is only allowed with \"stream\": true"},
      {"'stream':1", "stream", "stream must be true or false, not an integer"},
      {"'max_tokens':0", "max_tokens", "max_tokens must be between 1 and 2147483647, not 0"},
      {"'use_beam_search':true", "use_beam_search", "use_beam_search is not supported"},
      {"'tools':[{'type':'function'}]", "tools[0].function",
       "tools[0].function must be an object with a name"},
      {"'tool_choice':'required'", "tool_choice", "tool_choice needs tools"},
      {"'chat_template_kwargs':[]", "chat_template_kwargs",
       "chat_template_kwargs must be an object, not an array"},
      {"'modalities':['text','audio']", "modalities", "modalities may hold \"text\" only"},
  };
  for (const BadField& bad : kCases) {
    const ApiError error = chat_error(std::string(kHello) + "," + bad.fields);
    EXPECT_EQ(error.status, 400) << bad.fields;
    EXPECT_EQ(error.param, bad.param) << bad.fields;
    EXPECT_EQ(error.message, bad.message);
  }
}

TEST(ChatRequest, ErrorsNameThePlaceInAMessage) {
  const BadField kCases[] = {
      {"'messages':'Hi'", "messages", "messages must be an array, not a string"},
      {"'messages':[]", "messages", "messages must not be empty"},
      {"'messages':[3]", "messages[0]", "messages[0] must be an object, not an integer"},
      {"'messages':[{'role':'user'}]", "messages[0].content", "messages[0].content is missing"},
      {"'messages':[{'role':'robot','content':'x'}]", "messages[0].role",
       "messages[0].role must be \"system\", \"developer\", \"user\", \"assistant\" or \"tool\""},
      {"'messages':[{'role':'user','content':[{'type':'image_url','image_url':{'url':'x'}}]}]",
       "messages[0].content[0].type",
       "messages[0].content[0].type names an image, sound, video or file: this server takes text "
       "only"},
      {"'messages':[{'role':'assistant','tool_calls':[{'function':{'name':'f','arguments':'[1'}}]}"
       "]",
       "messages[0].tool_calls[0].function.arguments",
       "messages[0].tool_calls[0].function.arguments must be a JSON object written as a string"},
  };
  for (const BadField& bad : kCases) {
    const ApiError error = chat_error(bad.fields);
    EXPECT_EQ(error.param, bad.param) << bad.fields;
    EXPECT_EQ(error.message, bad.message);
  }
  EXPECT_EQ(chat_error("'model':'tiny'").message, "messages is missing: give a list of messages");
}

TEST(ChatRequest, AModelThatIsNotServedIsNotFound) {
  const ApiError error = chat_error(std::string(kHello) + ",'model':'gpt'");
  EXPECT_EQ(error.status, 404);
  EXPECT_EQ(error.code, "model_not_found");
  EXPECT_EQ(error.param, "model");
}

TEST(ChatRequest, WhatDoesNotFitIsRefusedWithTheNumbers) {
  const ApiError limit = chat_error(std::string(kHello) + ",'max_tokens':250");
  EXPECT_EQ(limit.code, "context_length_exceeded");
  EXPECT_EQ(limit.param, "max_tokens");
  EXPECT_EQ(limit.message,
            "This model's maximum context length is 256 tokens, but messages has 18 tokens and "
            "max_tokens is 250: lower it to 238 or shorten the prompt");
  const ApiError prompt =
      chat_error("'messages':[{'role':'user','content':'" + std::string(600, 'x') + "'}]");
  EXPECT_EQ(prompt.code, "context_length_exceeded");
  EXPECT_EQ(prompt.param, "messages");
}

TEST(ChatRequest, BodiesThatAreNoJsonAreRefused) {
  const auto message = [](std::string_view body) {
    const auto result = parse_chat_completion(body, test_context());
    const ApiError* error = error_of(result);
    return error == nullptr ? "accepted" : error->message;
  };
  EXPECT_EQ(message("{"), "the request body: not valid JSON near byte 2");
  EXPECT_EQ(message(""), "the request body: not valid JSON near byte 1");
  EXPECT_EQ(message("[]"), "the request body must be a JSON object, not an array");
  EXPECT_EQ(message("{\"a\":\"\xff\"}"), "the request body: not valid JSON near byte 7");
  EXPECT_EQ(message("{\"n\":1e999}"),
            "the request body: not valid JSON (a number is out of range)");
  EXPECT_EQ(message(std::string(100000, '[')),
            "the request body: JSON nested deeper than 64 levels");
  std::string wide = "{";
  for (int i = 0; i < 100000; ++i) wide.append("\"").append(std::to_string(i)).append("\":0,");
  EXPECT_EQ(message(wide), "the request body: an object has too many members");
}

TEST(CompletionRequest, TakesEveryFormOfPrompt) {
  EXPECT_EQ(text_of(completion("'prompt':'Hello'").requests[0].prompt), "Hello");
  EXPECT_EQ(completion("'prompt':[1,2,3]").requests[0].prompt, (std::vector<TokenId>{1, 2, 3}));
  const GenerationRequest texts = completion("'prompt':['A','B'],'n':2");
  ASSERT_EQ(texts.requests.size(), 4U);
  EXPECT_EQ(text_of(texts.requests[1].prompt), "A");
  EXPECT_EQ(text_of(texts.requests[2].prompt), "B");
  const GenerationRequest ids = completion("'prompt':[[1],[2,3]]");
  ASSERT_EQ(ids.requests.size(), 2U);
  EXPECT_EQ(ids.requests[1].prompt, (std::vector<TokenId>{2, 3}));
  EXPECT_EQ(ids.requests[0].max_tokens, 16);
}

TEST(CompletionRequest, KeepsTheEndOfAPromptThatIsTruncated) {
  EXPECT_EQ(completion("'prompt':[1,2,3],'truncate_prompt_tokens':2").requests[0].prompt,
            (std::vector<TokenId>{2, 3}));
  const GenerationRequest fitted = completion("'prompt':'" + std::string(600, 'x') +
                                              "','truncate_prompt_tokens':-1,'max_tokens':10");
  EXPECT_EQ(fitted.requests[0].prompt.size(), 246U);
}

TEST(CompletionRequest, ErrorsNameTheField) {
  const BadField kCases[] = {
      {"'x':1", "prompt", "prompt is missing: give a string, token ids, or a list of either"},
      {"'prompt':''", "prompt", "prompt is empty: give at least one token"},
      {"'prompt':[]", "prompt", "prompt is empty: give at least one token"},
      {"'prompt':[[1],[]]", "prompt[1]", "prompt[1] is empty: give at least one token"},
      {"'prompt':[1,'a']", "prompt[1]", "prompt[1] must be an integer, not a string"},
      {"'prompt':[1,600]", "prompt[1]", "prompt[1] must be between 0 and 511, not 600"},
      {"'prompt':[[1],[-1]]", "prompt[1][0]", "prompt[1][0] must be between 0 and 511, not -1"},
      {"'prompt':{}", "prompt", "prompt must be a string or an array of token ids, not an object"},
      {"'prompt':'a','suffix':'b'", "suffix", "suffix is not supported"},
      {"'prompt':'a','logprobs':true", "logprobs", "logprobs must be an integer, not a boolean"},
      {"'prompt':'a','max_tokens':0", "max_tokens",
       "max_tokens must be at least 1 unless \"echo\" is true"},
  };
  for (const BadField& bad : kCases) {
    const ApiError error = completion_error(bad.fields);
    EXPECT_EQ(error.param, bad.param) << bad.fields;
    EXPECT_EQ(error.message, bad.message);
  }
  EXPECT_EQ(completion_error("'prompt':['a','" + std::string(600, 'x') + "']").param, "prompt[1]");
}

}  // namespace
}  // namespace nanocp::api
