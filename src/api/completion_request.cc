// Body of /v1/completions.
#include <algorithm>
#include <optional>
#include <utility>

#include "api/body_reader.h"
#include "api/generation_request.h"
#include "api/request_fields.h"
#include "api/structured_output.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kDefaultMaxTokens = 16;  // as in OpenAI's API

struct PromptOptions {
  bool add_special = true;
  bool keep_text = false;  // for echo
  int64_t tokens_max = 0;  // the last ones are kept; 0: all
};

// Reads the field `prompt`: a string, token ids, or a list of either.
class PromptReader {
 public:
  PromptReader(BodyReader& body, const ModelContext& context, const PromptOptions& options)
      : body_(body), context_(context), options_(options) {}

  std::vector<Prompt> read() {
    const Json* value = body_.find("prompt");
    if (value == nullptr) {
      body_.fail("prompt", "is missing: give a string, token ids, or a list of either");
      return {};
    }
    const bool is_list = value->is_array() && !value->empty() && !value->front().is_number();
    const size_t count = is_list ? value->size() : 1;
    if (count > static_cast<size_t>(context_.limits.num_prompts_max)) {
      body_.fail("prompt", "has " + std::to_string(count) + " prompts, the limit is " +
                               std::to_string(context_.limits.num_prompts_max));
      return {};
    }
    for (size_t i = 0; i < count && !body_.failed(); ++i) {
      add(is_list ? (*value)[i] : *value,
          is_list ? "prompt[" + std::to_string(i) + "]" : std::string("prompt"));
    }
    return std::move(prompts_);
  }

 private:
  void add(const Json& value, const std::string& name) {
    if (value.is_string()) {
      add_text(value.get_ref<const std::string&>(), name);
    } else if (value.is_array()) {
      add_tokens(value, name);
    } else {
      body_.fail(name, "must be a string or an array of token ids, not " + kind_of(value));
    }
  }

  void add_text(const std::string& text, const std::string& name) {
    num_bytes_ += static_cast<int64_t>(text.size());
    if (num_bytes_ > context_.limits.prompt_bytes_max) {
      return body_.fail(
          "prompt",
          "has more than " + std::to_string(context_.limits.prompt_bytes_max) + " bytes of text");
    }
    // Whoever writes a raw prompt writes its special tokens too.
    const text::EncodeOptions encode = {.allow_special = true, .add_special = options_.add_special};
    add_prompt(name, context_.tokenizer->encode(text, encode), text);
  }

  void add_tokens(const Json& value, const std::string& name) {
    const std::vector<int64_t> ids = body_.integers(value, name, {0, context_.vocab_size - 1});
    if (body_.failed()) return;
    std::vector<TokenId> tokens(ids.begin(), ids.end());
    std::string text;
    if (options_.keep_text) text = context_.tokenizer->decode(tokens, false);
    add_prompt(name, std::move(tokens), text);
  }

  void add_prompt(const std::string& name, std::vector<TokenId> tokens, const std::string& text) {
    if (tokens.empty()) return body_.fail(name, "is empty: give at least one token");
    const auto count = static_cast<int64_t>(tokens.size());
    const bool is_cut = options_.tokens_max > 0 && count > options_.tokens_max;
    if (is_cut) tokens.erase(tokens.begin(), tokens.end() - options_.tokens_max);
    std::string shown;
    if (options_.keep_text) shown = is_cut ? context_.tokenizer->decode(tokens, false) : text;
    prompts_.push_back({.name = name, .tokens = std::move(tokens), .text = std::move(shown)});
  }

  BodyReader& body_;
  const ModelContext& context_;
  const PromptOptions options_;
  std::vector<Prompt> prompts_;
  int64_t num_bytes_ = 0;
};

// -1 stands for all that fits with `max_tokens`.
int64_t read_truncation(BodyReader& body, const RequestFields& fields,
                        const ModelContext& context) {
  const int64_t count = body.integer("truncate_prompt_tokens", {-1, context.max_model_len}, 0);
  if (count >= 0) return count;
  const int64_t wanted = std::max<int64_t>(1, fields.max_tokens.value_or(kDefaultMaxTokens));
  return std::max<int64_t>(1, context.max_model_len - wanted);
}

void read_logprobs(BodyReader& body, const ModelContext& context, RequestFields& fields) {
  OutputOptions& output = fields.output;
  output.num_logprobs =
      static_cast<int32_t>(body.integer("logprobs", {0, context.limits.num_logprobs_max}, -1));
  fields.request.sampling.num_logprobs = output.num_logprobs;
  output.echo = body.boolean("echo", false);
  if (output.echo) fields.request.num_prompt_logprobs = output.num_logprobs;
  output.prompt_only = fields.max_tokens == 0;
  if (output.prompt_only && !output.echo) {
    body.fail("max_tokens", "must be at least 1 unless \"echo\" is true");
  }
}

}  // namespace

ApiResult<GenerationRequest> parse_completion(std::string_view text, const ModelContext& context) {
  ApiResult<Json> document = parse_body(text);
  if (const ApiError* error = error_of(document)) return *error;
  BodyReader body(std::get<Json>(document));
  RequestFields fields = read_request_fields(body, context);
  fields.output.endpoint = Endpoint::kCompletion;
  read_max_tokens(body, "max_tokens", 0, fields);
  read_logprobs(body, context, fields);
  const PromptOptions options = {.add_special = body.boolean("add_special_tokens", true),
                                 .keep_text = fields.output.echo,
                                 .tokens_max = read_truncation(body, fields, context)};
  const std::optional<WantedFormat> wanted = read_wanted_format(body, context);
  if (body.failed()) return body.error();
  if (wanted) {
    auto constraint = compile(*wanted, context);
    if (const ApiError* error = error_of(constraint)) return *error;
    fields.request.constraint = std::get<0>(std::move(constraint));
  }
  std::vector<Prompt> prompts = PromptReader(body, context, options).read();
  if (body.failed()) return body.error();
  ApiResult<GenerationRequest> result =
      make_requests(std::move(fields), std::move(prompts), kDefaultMaxTokens, context);
  if (auto* request = std::get_if<GenerationRequest>(&result)) {
    request->warnings = unknown_field_warnings(body.unknown());
  }
  return result;
}

}  // namespace nanocp::api
