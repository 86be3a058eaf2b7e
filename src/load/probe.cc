#include "load/probe.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "http_client/fetch.h"
#include "load/answer_reader.h"

namespace nanocp::load {
namespace {

using nlohmann::json;

constexpr size_t kAnswerBytesMax = size_t{16} << 20;
constexpr int64_t kFewWords = 32;
constexpr int64_t kManyWords = 160;
constexpr uint64_t kSeed = 1;

Error refused(const http_client::Answer& answer, const std::string& what) {
  return {ErrorCode::kInvalidArgument, what + ": the server answered " +
                                           std::to_string(answer.status) + ", " +
                                           error_text(answer.body)};
}

// The prompt tokens of a request, or nothing where usage is missing.
Result<std::optional<int64_t>> count_prompt_tokens(const http_client::Options& client,
                                                   const Target& target,
                                                   const std::string& prompt) {
  NANOCP_ASSIGN_OR_RETURN(const http_client::Answer answer,
                          fetch(client, target.probe(prompt), kAnswerBytesMax));
  if (answer.status != 200) return refused(answer, "a first request of a few words");
  const json body = json::parse(answer.body, nullptr, false);
  const json* usage = body.is_object() && body.contains("usage") ? &body["usage"] : nullptr;
  const bool is_counted = usage != nullptr && usage->is_object() &&
                          usage->contains("prompt_tokens") &&
                          (*usage)["prompt_tokens"].is_number_integer();
  if (!is_counted) return std::optional<int64_t>();
  return std::optional<int64_t>((*usage)["prompt_tokens"].get<int64_t>());
}

}  // namespace

Result<std::string> first_model(const http_client::Options& client, const Target& target) {
  const std::string what = "the list of models, which --model makes unnecessary";
  NANOCP_ASSIGN_OR_RETURN(const http_client::Answer answer,
                          fetch(client, target.get("models"), kAnswerBytesMax));
  if (answer.status != 200) return refused(answer, what);
  const json body = json::parse(answer.body, nullptr, false);
  const bool has_list = body.is_object() && body.contains("data") && body["data"].is_array();
  if (has_list) {
    for (const json& model : body["data"]) {
      if (model.is_object() && model.contains("id") && model["id"].is_string()) {
        return model["id"].get<std::string>();
      }
    }
  }
  return invalid_argument(what + ": none in " + shortened(answer.body));
}

Result<IdsAnswer> try_ids(const http_client::Options& client, const Target& target,
                          TokenIdRange range) {
  // Both ends are among them: a vocabulary that lacks the highest does not have the range.
  std::string prompt = "[";
  prompt.append(std::to_string(range.low)).append(",").append(std::to_string(range.high));
  prompt += ']';
  NANOCP_ASSIGN_OR_RETURN(const http_client::Answer answer,
                          fetch(client, target.probe(prompt), kAnswerBytesMax));
  if (answer.status == 200) return IdsAnswer{.are_taken = true};
  const bool may_be_prompt = answer.status == 400 || answer.status == 422 || answer.status == 500;
  if (!may_be_prompt) return refused(answer, "a first request of a few token ids");
  return IdsAnswer{.refusal = error_text(answer.body)};
}

Result<std::optional<TextShape>> measure_text(const http_client::Options& client,
                                              const Target& target, Api api) {
  NANOCP_ASSIGN_OR_RETURN(const std::optional<int64_t> few,
                          count_prompt_tokens(client, target, word_prompt(api, kFewWords, kSeed)));
  NANOCP_ASSIGN_OR_RETURN(const std::optional<int64_t> many,
                          count_prompt_tokens(client, target, word_prompt(api, kManyWords, kSeed)));
  if (!few || !many || *many <= *few) return std::optional<TextShape>();
  TextShape shape;
  shape.tokens_per_word =
      static_cast<double>(*many - *few) / static_cast<double>(kManyWords - kFewWords);
  shape.tokens_around =
      std::max(0.0, static_cast<double>(*few) - shape.tokens_per_word * kFewWords);
  return std::optional<TextShape>(shape);
}

}  // namespace nanocp::load
