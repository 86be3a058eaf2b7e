#include "engine/check_request.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>

namespace nanocp::engine {
namespace {

Error wrong(const std::string& name, double value, const std::string& rule) {
  std::ostringstream text;
  text << name << " is " << value << ", it must be " << rule;
  return invalid_argument(text.str());
}

Status check_token(const std::string& name, TokenId token, int64_t vocab_size) {
  if (token >= 0 && (vocab_size == 0 || token < vocab_size)) return ok_status();
  const std::string range =
      vocab_size == 0 ? "at least 0" : "in 0 .. " + std::to_string(vocab_size - 1);
  return invalid_argument(name + " is " + std::to_string(token) +
                          ", token ids of this model must be " + range);
}

Status check_tokens(const std::string& name, const std::vector<TokenId>& tokens,
                    int64_t vocab_size) {
  // Prompts are long: one pass that has no exit, and a second one only to name what is wrong.
  const auto limit = vocab_size == 0 ? uint32_t{1} << 31 : static_cast<uint32_t>(vocab_size);
  uint32_t largest = 0;
  for (const TokenId token : tokens) largest = std::max(largest, static_cast<uint32_t>(token));
  if (largest < limit) return ok_status();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool is_good = tokens[i] >= 0 && (vocab_size == 0 || tokens[i] < vocab_size);
    if (!is_good) return check_token(name + "[" + std::to_string(i) + "]", tokens[i], vocab_size);
  }
  return ok_status();
}

Status check_all_tokens(const request::Request& request, int64_t vocab_size) {
  if (request.prompt.empty()) return invalid_argument("prompt is empty: give at least one token");
  NANOCP_RETURN_IF_ERROR(check_tokens("prompt", request.prompt, vocab_size));
  NANOCP_RETURN_IF_ERROR(check_tokens("stop_token_ids", request.stop_token_ids, vocab_size));
  NANOCP_RETURN_IF_ERROR(
      check_tokens("forbidden_tokens", request.sampling.forbidden_tokens, vocab_size));
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    NANOCP_RETURN_IF_ERROR(check_token("token of logit_bias", token, vocab_size));
  }
  return ok_status();
}

Status check_length(const request::Request& request, int64_t max_model_len) {
  const auto num_prompt = static_cast<int64_t>(request.prompt.size());
  if (max_model_len == 0 || num_prompt + request.max_tokens <= max_model_len) return ok_status();
  const std::string sizes = "prompt of " + std::to_string(num_prompt) + " tokens with max_tokens " +
                            std::to_string(request.max_tokens) + " exceeds the model length of " +
                            std::to_string(max_model_len) + " tokens: ";
  if (num_prompt >= max_model_len) return invalid_argument(sizes + "shorten the prompt");
  return invalid_argument(sizes + "shorten the prompt or lower max_tokens to " +
                          std::to_string(max_model_len - num_prompt));
}

}  // namespace

// Comparisons are written so that NaN fails them.
Status check_sampling(const SamplingParams& sampling) {
  const auto in = [](float value, float low, float high) { return value >= low && value <= high; };
  if (!(sampling.temperature >= 0.0F && std::isfinite(sampling.temperature))) {
    return wrong("temperature", sampling.temperature, "0 (greedy) or larger");
  }
  if (sampling.top_k < 0) return wrong("top_k", sampling.top_k, "0 (all tokens) or larger");
  if (!(sampling.top_p > 0.0F && sampling.top_p <= 1.0F)) {
    return wrong("top_p", sampling.top_p, "in (0, 1]");
  }
  if (!(sampling.min_p >= 0.0F && sampling.min_p < 1.0F)) {
    return wrong("min_p", sampling.min_p, "in [0, 1)");
  }
  if (!(sampling.repetition_penalty > 0.0F && std::isfinite(sampling.repetition_penalty))) {
    return wrong("repetition_penalty", sampling.repetition_penalty, "above 0");
  }
  if (!in(sampling.presence_penalty, -100.0F, 100.0F)) {
    return wrong("presence_penalty", sampling.presence_penalty, "in [-100, 100]");
  }
  if (!in(sampling.frequency_penalty, -100.0F, 100.0F)) {
    return wrong("frequency_penalty", sampling.frequency_penalty, "in [-100, 100]");
  }
  if (sampling.num_logprobs < -1) {
    return wrong("num_logprobs", sampling.num_logprobs, "-1 (none) or larger");
  }
  for (const auto& [token, bias] : sampling.logit_bias) {
    if (std::isnan(bias)) {
      return invalid_argument("logit_bias of token " + std::to_string(token) + " is not a number");
    }
  }
  return ok_status();
}

Status check_request(const request::Request& request, const RequestLimits& limits) {
  NANOCP_RETURN_IF_ERROR(check_all_tokens(request, limits.vocab_size));
  if (request.max_tokens < 1) return wrong("max_tokens", request.max_tokens, "at least 1");
  if (request.min_tokens < 0 || request.min_tokens > request.max_tokens) {
    return wrong("min_tokens", request.min_tokens,
                 "in 0 .. max_tokens (" + std::to_string(request.max_tokens) + ")");
  }
  // The rule says where the output may end, and there nothing else is allowed.
  if (request.constraint != nullptr && (request.min_tokens > 0 || request.ignore_eos)) {
    return invalid_argument(std::string(request.ignore_eos ? "ignore_eos" : "min_tokens") +
                            " cannot be set for structured output, which ends where its format "
                            "does");
  }
  if (request.num_prompt_logprobs < -1) {
    return wrong("num_prompt_logprobs", request.num_prompt_logprobs, "-1 (none) or larger");
  }
  NANOCP_RETURN_IF_ERROR(check_length(request, limits.max_model_len));
  return check_sampling(request.sampling);
}

}  // namespace nanocp::engine
