#include "api/request_fields.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "engine/check_request.h"
#include "text/json_field.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr int32_t kIntMax = std::numeric_limits<int32_t>::max();
constexpr double kNumberMax = 1e9;

// {"TOKEN": BIAS, ...}
void read_logit_bias(BodyReader& body, const ModelContext& context, SamplingParams& sampling) {
  const Json* object = body.object("logit_bias");
  if (object == nullptr) return;
  const auto count_max = static_cast<size_t>(context.limits.num_logit_bias_max);
  if (object->size() > count_max) {
    return body.fail("logit_bias", "has more than " + std::to_string(count_max) + " members");
  }
  BodyReader biases(*object, body.path_of("logit_bias"));
  for (const auto& item : object->items()) {
    const std::string& key = item.key();
    TokenId token = -1;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    const bool is_number = error == std::errc() && end == key.data() + key.size();
    if (!is_number || token < 0 || token >= context.vocab_size) {
      return body.fail("logit_bias", "has the member " + text::shown(key) +
                                         ", which is no token id between 0 and " +
                                         std::to_string(context.vocab_size - 1));
    }
    const double bias = biases.number(key, {-100, 100}, 0);
    sampling.logit_bias.emplace_back(token, static_cast<float>(bias));
  }
  if (biases.failed()) body.fail(biases.error());
}

void read_sampling(BodyReader& body, const ModelContext& context, RequestFields& fields) {
  SamplingParams& sampling = fields.request.sampling;
  const SamplingDefaults& defaults = context.defaults;
  const auto number = [&](const char* name, double low, double high, float if_absent) {
    return static_cast<float>(body.number(name, {low, high}, if_absent));
  };
  // Below any float that top_p or repetition_penalty may be.
  constexpr double kAboveZero = 1e-6;
  constexpr float kBelowOne = 1.0F - std::numeric_limits<float>::epsilon();
  sampling.temperature = number("temperature", 0, kNumberMax, defaults.temperature);
  sampling.top_p = number("top_p", kAboveZero, 1, defaults.top_p);
  sampling.min_p = std::min(number("min_p", 0, 1, defaults.min_p), kBelowOne);
  sampling.top_k = static_cast<int32_t>(
      std::max<int64_t>(0, body.integer("top_k", {-1, kIntMax}, defaults.top_k)));
  sampling.repetition_penalty =
      number("repetition_penalty", kAboveZero, kNumberMax, defaults.repetition_penalty);
  sampling.presence_penalty = number("presence_penalty", -2, 2, 0);
  sampling.frequency_penalty = number("frequency_penalty", -2, 2, 0);
  read_logit_bias(body, context, sampling);
  if (body.find("seed") != nullptr) {
    fields.seed = body.integer("seed", {INT64_MIN, INT64_MAX}, 0);
  }
}

void read_stops(BodyReader& body, const ModelContext& context, RequestFields& fields) {
  const Limits& limits = context.limits;
  OutputOptions& output = fields.output;
  request::Request& request = fields.request;
  output.stop = body.strings("stop", static_cast<size_t>(limits.stop_bytes_max),
                             static_cast<size_t>(limits.num_stop_max));
  output.include_stop = body.boolean("include_stop_str_in_output", false);
  output.skip_special_tokens = body.boolean("skip_special_tokens", true);
  for (const int64_t token : body.integers("stop_token_ids", {0, context.vocab_size - 1},
                                           static_cast<size_t>(limits.num_stop_token_ids_max))) {
    request.stop_token_ids.push_back(static_cast<TokenId>(token));
  }
  request.ignore_eos = body.boolean("ignore_eos", false);
  request.min_tokens = static_cast<int32_t>(body.integer("min_tokens", {0, kIntMax}, 0));
  output.min_tokens = request.min_tokens;
}

void read_streaming(BodyReader& body, OutputOptions& output) {
  output.stream = body.boolean("stream", false);
  const Json* object = body.object("stream_options");
  if (object == nullptr) return;
  if (!output.stream) return body.fail("stream_options", "is only allowed with \"stream\": true");
  BodyReader options(*object, "stream_options");
  output.include_usage = options.boolean("include_usage", false);
  output.continuous_usage =
      options.boolean("continuous_usage_stats", false) && output.include_usage;
  if (options.failed()) body.fail(options.error());
}

void read_number_of_choices(BodyReader& body, const ModelContext& context, OutputOptions& output) {
  output.n = static_cast<int32_t>(body.integer("n", {1, context.limits.n_max}, 1));
  const int64_t best_of = body.integer("best_of", {1, context.limits.n_max}, output.n);
  if (best_of != output.n) {
    body.fail("best_of", "must be n (" + std::to_string(output.n) +
                             ") or absent: choosing the best of more answers is not supported");
  }
}

// Fields that would change the answer if they were carried out. An empty value asks for nothing.
void refuse_unsupported(BodyReader& body) {
  for (const char* name :
       {"use_beam_search", "suffix", "bad_words", "allowed_token_ids", "logits_processors",
        "prompt_embeds", "functions", "function_call", "audio", "web_search_options",
        "chat_template", "mm_processor_kwargs", "documents", "prompt_logprobs"}) {
    const Json* value = body.find(name);
    if (value == nullptr) continue;
    const bool is_off = (value->is_boolean() && !value->get<bool>()) ||
                        (value->is_string() && value->get_ref<const std::string&>().empty()) ||
                        (value->is_structured() && value->empty());
    if (!is_off) body.fail(name, "is not supported", "unsupported_parameter");
  }
}

void ignore_harmless(BodyReader& body) {
  body.ignore({"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
               "prompt_cache_retention", "prediction", "verbosity", "request_id", "length_penalty",
               "early_stopping", "spaces_between_special_tokens", "include_reasoning"});
}

std::string count_of(int64_t count, const char* noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

ApiError too_long(const Prompt& prompt, const RequestFields& fields, const ModelContext& context) {
  const auto num_prompt = static_cast<int64_t>(prompt.tokens.size());
  const int64_t room = context.max_model_len - num_prompt;
  std::string message = "This model's maximum context length is " +
                        count_of(context.max_model_len, "token") + ", but " + prompt.name +
                        " has " + count_of(num_prompt, "token");
  if (room <= 0) {
    message += ", which leaves no room for an answer: shorten it";
    return {.message = message, .param = prompt.name, .code = "context_length_exceeded"};
  }
  message += " and " + fields.max_tokens_name + " is " + std::to_string(*fields.max_tokens) +
             ": lower it to " + std::to_string(room) + " or shorten the prompt";
  return {.message = message, .param = fields.max_tokens_name, .code = "context_length_exceeded"};
}

// Answers of one prompt. `max_tokens` of the request is set.
void add_choices(const RequestFields& fields, const request::Request& request,
                 std::vector<request::Request>& requests) {
  for (int32_t choice = 0; choice < fields.output.n; ++choice) {
    requests.push_back(request);
    // Each choice another answer, the first one that of n = 1.
    requests.back().sampling.seed =
        static_cast<uint64_t>(fields.seed.value_or(0)) + static_cast<uint64_t>(choice);
    requests.back().draw_seed = !fields.seed.has_value();
  }
}

}  // namespace

void check_model(BodyReader& body, const ModelContext& context) {
  const std::string name = body.string("model", 4096, context.served_names.front());
  const auto& served = context.served_names;
  if (std::find(served.begin(), served.end(), name) != served.end()) return;
  body.fail(model_not_found(name));
}

RequestFields read_request_fields(BodyReader& body, const ModelContext& context) {
  RequestFields fields;
  check_model(body, context);
  read_sampling(body, context, fields);
  read_stops(body, context, fields);
  read_streaming(body, fields.output);
  read_number_of_choices(body, context, fields.output);
  fields.request.priority = static_cast<int32_t>(body.integer("priority", {-kIntMax, kIntMax}, 0));
  fields.output.return_token_ids = body.boolean("return_token_ids", false);
  refuse_unsupported(body);
  ignore_harmless(body);
  return fields;
}

void read_max_tokens(BodyReader& body, const std::string& name, int64_t low,
                     RequestFields& fields) {
  if (body.find(name) == nullptr) return;
  fields.max_tokens = body.integer(name, {low, kIntMax}, 1);
  fields.max_tokens_name = name;
}

ApiResult<GenerationRequest> make_requests(RequestFields fields, std::vector<Prompt> prompts,
                                           int64_t default_max_tokens,
                                           const ModelContext& context) {
  const Limits& limits = context.limits;
  const auto num_choices = static_cast<int64_t>(prompts.size()) * fields.output.n;
  int64_t num_tokens = 0;
  for (const Prompt& prompt : prompts) {
    num_tokens += static_cast<int64_t>(prompt.tokens.size()) * fields.output.n;
  }
  if (num_choices > limits.num_choices_max || num_tokens > limits.num_prompt_tokens_max) {
    return ApiError{.message = count_of(num_choices, "choice") + " with " +
                               count_of(num_tokens, "prompt token") +
                               " in one request: the limits are " +
                               std::to_string(limits.num_choices_max) + " and " +
                               std::to_string(limits.num_prompt_tokens_max),
                    .param = "n"};
  }
  GenerationRequest result;
  result.requests.reserve(static_cast<size_t>(num_choices));
  for (Prompt& prompt : prompts) {
    const int64_t room = context.max_model_len - static_cast<int64_t>(prompt.tokens.size());
    // Of no tokens at all one is sampled all the same, and not shown.
    const int64_t wanted = std::max<int64_t>(1, fields.max_tokens.value_or(1));
    if (room < wanted) return too_long(prompt, fields, context);
    request::Request request = fields.request;
    request.max_tokens = static_cast<int32_t>(
        fields.max_tokens ? wanted : std::min<int64_t>({room, default_max_tokens, kIntMax}));
    request.prompt = std::move(prompt.tokens);
    const Status status = engine::check_request(
        request, {.max_model_len = context.max_model_len, .vocab_size = context.vocab_size});
    if (!status.ok()) {
      return ApiError{.message = prompt.name + ": " + status.error().message, .param = prompt.name};
    }
    add_choices(fields, request, result.requests);
    const bool needs_ids = fields.output.echo || fields.output.return_token_ids;
    fields.output.prompts.push_back(
        {.num_tokens = static_cast<int64_t>(request.prompt.size()),
         .token_ids = needs_ids ? std::move(request.prompt) : std::vector<TokenId>(),
         .text = std::move(prompt.text)});
  }
  result.output = std::move(fields.output);
  return result;
}

std::vector<std::string> unknown_field_warnings(const std::vector<std::string>& names) {
  constexpr size_t kShownMax = 8;
  if (names.empty()) return {};
  std::string line = names.size() == 1 ? "ignored the unknown field " : "ignored unknown fields ";
  for (size_t i = 0; i < std::min(names.size(), kShownMax); ++i) {
    line += (i == 0 ? "" : ", ");
    line += text::shown(names[i]);
  }
  if (names.size() > kShownMax) {
    line += " and " + std::to_string(names.size() - kShownMax) + " more";
  }
  return {line};
}

}  // namespace nanocp::api
