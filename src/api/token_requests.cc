#include "api/token_requests.h"

#include <utility>

#include "api/body_reader.h"
#include "api/chat_messages.h"
#include "api/json_text.h"
#include "api/request_fields.h"
#include "text/unicode.h"

namespace nanocp::api {
namespace {

using Json = nlohmann::ordered_json;

ApiResult<std::vector<TokenId>> chat_tokens(BodyReader& body, const ModelContext& context) {
  if (context.chat_template == nullptr) {
    return ApiError{.message = "the model has no chat template: give a prompt",
                    .param = "messages"};
  }
  const Conversation conversation = read_conversation(body, context);
  if (body.failed()) return body.error();
  ApiResult<std::string> text = render(conversation, context);
  if (const ApiError* error = error_of(text)) return *error;
  return encode_rendered(std::get<std::string>(text), context);
}

ApiResult<std::vector<TokenId>> read_tokens(BodyReader& body, const ModelContext& context) {
  check_model(body, context);
  const bool add_special = body.boolean("add_special_tokens", true);
  if (body.find("messages") != nullptr) return chat_tokens(body, context);
  if (body.find("prompt") == nullptr) body.fail("prompt", "is missing: give a string");
  const std::string prompt =
      body.string("prompt", static_cast<size_t>(context.limits.prompt_bytes_max), {});
  if (body.failed()) return body.error();
  return context.tokenizer->encode(prompt, {.allow_special = true, .add_special = add_special});
}

}  // namespace

ApiResult<std::string> answer_tokenize(std::string_view text, const ModelContext& context) {
  ApiResult<Json> document = parse_body(text);
  if (const ApiError* error = error_of(document)) return *error;
  BodyReader body(std::get<Json>(document));
  const bool with_strings = body.boolean("return_token_strs", false);
  ApiResult<std::vector<TokenId>> result = read_tokens(body, context);
  if (const ApiError* error = error_of(result)) return *error;
  if (body.failed()) return body.error();
  const auto& tokens = std::get<std::vector<TokenId>>(result);
  std::string out = "{\"count\":";
  append_number(tokens.size(), out);
  out += ",\"max_model_len\":";
  append_number(context.max_model_len, out);
  out += ",\"tokens\":";
  append_ids(tokens, out);
  out += ",\"token_strs\":";
  if (!with_strings) return out + "null}";
  out.push_back('[');
  const size_t start = out.size();
  for (const TokenId token : tokens) {
    append_comma(start, out);
    std::string shown;
    text::append_valid_utf8(context.tokenizer->token_bytes(token), true, shown);
    append_string(shown, out);
  }
  return out + "]}";
}

ApiResult<std::string> answer_detokenize(std::string_view text, const ModelContext& context) {
  ApiResult<Json> document = parse_body(text);
  if (const ApiError* error = error_of(document)) return *error;
  BodyReader body(std::get<Json>(document));
  check_model(body, context);
  if (body.find("tokens") == nullptr) body.fail("tokens", "is missing: give a list of token ids");
  const std::vector<int64_t> ids =
      body.integers("tokens", {0, context.vocab_size - 1},
                    static_cast<size_t>(context.limits.num_prompt_tokens_max));
  if (body.failed()) return body.error();
  const std::vector<TokenId> tokens(ids.begin(), ids.end());
  std::string out = "{\"prompt\":";
  append_string(context.tokenizer->decode(tokens, false), out);
  out.push_back('}');
  return out;
}

}  // namespace nanocp::api
