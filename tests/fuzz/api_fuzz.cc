// Request bodies from nobody knows whom, for every endpoint: each is refused with a status and a
// message, or becomes requests that the engine takes, and whatever tokens follow, what is written
// is valid JSON.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "api/generation_request.h"
#include "api/response_writer.h"
#include "api/test_context.h"
#include "api/token_requests.h"
#include "base/check.h"
#include "base/random.h"
#include "engine/check_request.h"
#include "grammar/structured_output.h"

namespace {

using namespace nanocp;  // NOLINT(google-build-using-namespace)
using request::FinishReason;

constexpr int kTokensMax = 32;

// The model of the tests, with thoughts, tools and structured output.
const api::ModelContext& fuzz_context() {
  static grammar::Compiler compiler(
      grammar::Vocabulary::create(*api::test_context().tokenizer, {510}));
  static const api::ModelContext kContext = [] {
    api::ModelContext context = api::test_context();
    context.output_format = {.reasoning = api::ReasoningFormat::kThinkTags,
                             .tool_calls = api::ToolCallFormat::kHermes};
    context.compile_format = [](const grammar::ResponseFormat& format) {
      return compiler.compile(format);
    };
    return context;
  }();
  return kContext;
}

void check_error(const api::ApiError& error) {
  NANOCP_CHECK(error.status >= 400 && error.status < 500);
  NANOCP_CHECK(!error.message.empty());
  NANOCP_CHECK(nlohmann::json::accept(api::to_json(error)));
}

// Events, each of which but the last must be JSON.
void check_stream(std::string_view out) {
  constexpr std::string_view kData = "data: ";
  while (!out.empty()) {
    const size_t end = out.find("\n\n");
    NANOCP_CHECK(out.starts_with(kData) && end != std::string_view::npos);
    const std::string_view event = out.substr(kData.size(), end - kData.size());
    NANOCP_CHECK(event == "[DONE]" || nlohmann::json::accept(event));
    out.remove_prefix(end + 2);
  }
}

engine::TokenEvent next_event(Random& random, const request::Request& request, bool is_first) {
  engine::TokenEvent event;
  const auto any_token = [&] { return static_cast<TokenId>(random.below(512)); };
  event.token = any_token();
  event.logprob = -static_cast<float>(random.below(100));
  for (int32_t i = 0; i < request.sampling.num_logprobs; ++i) {
    event.details.make().top_logprobs.emplace_back(any_token(), -1.0F);
  }
  if (is_first && request.num_prompt_logprobs >= 0) {
    event.details.make().prompt_scores.resize(request.prompt.size() - 1);
  }
  return event;
}

void answer(api::GenerationRequest generation, Random& random) {
  const bool streams = generation.output.stream;
  api::ResponseWriter writer(std::move(generation.output), fuzz_context(), {.id = "fuzz"});
  std::string out;
  writer.begin(out);
  for (size_t index = 0; index < generation.requests.size(); ++index) {
    const request::Request& request = generation.requests[index];
    const int num_tokens = std::min(request.max_tokens, kTokensMax);
    for (int i = 0; i < num_tokens; ++i) {
      engine::TokenEvent event = next_event(random, request, i == 0);
      const bool is_last = i + 1 == num_tokens;
      if (is_last) event.finish_reason = FinishReason::kLength;
      if (is_last && random.below(2) == 0) event.finish_reason = FinishReason::kStop;
      event.is_text = event.finish_reason != FinishReason::kStop;
      if (writer.push(index, event, out).finished) break;
    }
  }
  NANOCP_CHECK(writer.done());
  writer.finish(out);
  if (streams) {
    check_stream(out);
  } else {
    NANOCP_CHECK(nlohmann::json::accept(out));
  }
}

void generate(api::ApiResult<api::GenerationRequest> result, Random& random) {
  if (const api::ApiError* error = api::error_of(result)) return check_error(*error);
  auto& generation = std::get<api::GenerationRequest>(result);
  NANOCP_CHECK_EQ(generation.requests.size(), generation.output.num_choices());
  for (const request::Request& request : generation.requests) {
    const Status status = engine::check_request(request, {.max_model_len = 256, .vocab_size = 512});
    NANOCP_CHECK(status.ok());
  }
  answer(std::move(generation), random);
}

void check_text(const api::ApiResult<std::string>& result) {
  if (const api::ApiError* error = api::error_of(result)) return check_error(*error);
  NANOCP_CHECK(nlohmann::json::accept(std::get<std::string>(result)));
}

}  // namespace

// The input is a body for all endpoints; its bytes also choose the tokens of the answer.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view body(reinterpret_cast<const char*>(data), size);
  const api::ModelContext& context = fuzz_context();
  uint64_t seed = size;
  for (const char c : body) seed = seed * 31 + static_cast<uint8_t>(c);
  Random random(seed);
  generate(api::parse_chat_completion(body, context), random);
  generate(api::parse_completion(body, context), random);
  check_text(api::answer_tokenize(body, context));
  check_text(api::answer_detokenize(body, context));
  return 0;
}
