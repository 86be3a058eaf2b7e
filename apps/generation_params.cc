#include "apps/generation_params.h"

#include <cmath>
#include <functional>
#include <limits>
#include <map>

#include "apps/in_range.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

constexpr int32_t kIntMax = std::numeric_limits<int32_t>::max();

Status read_float(const json& value, float& out) {
  if (!value.is_number() || !(std::abs(value.get<double>()) <= 1e30)) {
    return invalid_argument("must be a number");
  }
  out = value.get<float>();
  return ok_status();
}

Status read_int(const json& value, int32_t low, int32_t& out) {
  const std::string range = "must be an integer of at least " + std::to_string(low);
  if (!value.is_number_integer()) return invalid_argument(range);
  const bool is_huge = value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{kIntMax};
  if (is_huge || value.get<int64_t>() < low) {
    return invalid_argument(range + " and at most " + std::to_string(kIntMax));
  }
  out = value.get<int32_t>();
  return ok_status();
}

Status read_bool(const json& value, bool& out) {
  if (!value.is_boolean()) return invalid_argument("must be true or false");
  out = value.get<bool>();
  return ok_status();
}

Status read_seed(const json& value, uint64_t& out) {
  if (!value.is_number_unsigned()) return invalid_argument("must be an integer of at least 0");
  out = value.get<uint64_t>();
  return ok_status();
}

// A string or an array of strings.
Status read_stop(const json& value, std::vector<std::string>& out) {
  const size_t count = value.is_array() ? value.size() : 1;
  out.clear();
  for (size_t i = 0; i < count; ++i) {
    const json& entry = value.is_array() ? value[i] : value;
    if (!entry.is_string() || entry.get_ref<const std::string&>().empty()) {
      return invalid_argument("must be a string that is not empty, or an array of such");
    }
    out.push_back(entry.get<std::string>());
  }
  return ok_status();
}

Status read_tokens(const json& value, std::vector<TokenId>& out) {
  if (!value.is_array()) return invalid_argument("must be an array of token ids");
  out.clear();
  for (const json& entry : value) {
    TokenId token = 0;
    const Status status = read_int(entry, 0, token);
    if (!status.ok()) return invalid_argument("must be an array of token ids");
    out.push_back(token);
  }
  return ok_status();
}

// {"TOKEN": BIAS, ...}
Status read_logit_bias(const json& value, std::vector<std::pair<TokenId, float>>& out) {
  const Error error = invalid_argument("must be an object of token ids and numbers");
  if (!value.is_object()) return error;
  out.clear();
  for (const auto& [key, bias] : value.items()) {
    const json token_value = json::parse(key, nullptr, false);
    TokenId token = 0;
    float amount = 0.0F;
    if (!read_int(token_value, 0, token).ok() || !read_float(bias, amount).ok()) return error;
    out.emplace_back(token, amount);
  }
  return ok_status();
}

Status read_top_k(const json& value, int32_t& out) {
  NANOCP_RETURN_IF_ERROR(read_int(value, -1, out));
  if (out == -1) out = 0;
  return ok_status();
}

}  // namespace

void add_generation_options(CLI::App& command, GenerationParams& params) {
  SamplingParams& sampling = params.sampling;
  const char* group = "Sampling (defaults of every prompt)";
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->capture_default_str()->group(group);
  };
  add("--max-tokens", params.max_tokens, "Longest answer")->check(in_range(1, kIntMax));
  add("--min-tokens", params.min_tokens, "No stop before this many")->check(in_range(0, kIntMax));
  add("--temperature", sampling.temperature, "0: greedy");
  add("--top-k", sampling.top_k, "Draw from the k best tokens; 0: from all")
      ->transform([](const std::string& text) { return text == "-1" ? "0" : text; });
  add("--top-p", sampling.top_p, "Draw from the best tokens that make up this probability");
  add("--min-p", sampling.min_p, "Drop tokens below this share of the best one's probability");
  add("--repetition-penalty", sampling.repetition_penalty,
      "On tokens of prompt and answer; 1: none");
  add("--presence-penalty", sampling.presence_penalty, "Once on tokens of the answer");
  add("--frequency-penalty", sampling.frequency_penalty, "Per occurrence in the answer");
  add("--seed", sampling.seed, "Same seed and request, same tokens");
  command
      .add_option("--logprobs", sampling.num_logprobs,
                  "With --json: log probabilities of the k best")
      ->check(in_range(0, 1000))
      ->type_name("K")
      ->group(group);
  command
      .add_option("--stop", params.stop, "Text that ends the answer and is not shown; repeatable")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--stop-token-ids", params.stop_token_ids, "Tokens that end the answer")
      ->type_name("ID")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(group);
  command.add_flag("--ignore-eos", params.ignore_eos, "Go on after the model's end token")
      ->group(group);
}

Result<bool> set_generation_param(const std::string& name, const json& value,
                                  GenerationParams& params) {
  using Reader = std::function<Status(const json&, GenerationParams&)>;
  static const std::map<std::string, Reader> kReaders = {
      {"max_tokens",
       [](const json& v, GenerationParams& p) { return read_int(v, 1, p.max_tokens); }},
      {"min_tokens",
       [](const json& v, GenerationParams& p) { return read_int(v, 0, p.min_tokens); }},
      {"temperature",
       [](const json& v, GenerationParams& p) { return read_float(v, p.sampling.temperature); }},
      {"top_k", [](const json& v, GenerationParams& p) { return read_top_k(v, p.sampling.top_k); }},
      {"top_p", [](const json& v, GenerationParams& p) { return read_float(v, p.sampling.top_p); }},
      {"min_p", [](const json& v, GenerationParams& p) { return read_float(v, p.sampling.min_p); }},
      {"repetition_penalty",
       [](const json& v, GenerationParams& p) {
         return read_float(v, p.sampling.repetition_penalty);
       }},
      {"presence_penalty",
       [](const json& v, GenerationParams& p) {
         return read_float(v, p.sampling.presence_penalty);
       }},
      {"frequency_penalty",
       [](const json& v, GenerationParams& p) {
         return read_float(v, p.sampling.frequency_penalty);
       }},
      {"seed", [](const json& v, GenerationParams& p) { return read_seed(v, p.sampling.seed); }},
      {"logprobs",
       [](const json& v, GenerationParams& p) { return read_int(v, 0, p.sampling.num_logprobs); }},
      {"logit_bias", [](const json& v,
                        GenerationParams& p) { return read_logit_bias(v, p.sampling.logit_bias); }},
      {"stop", [](const json& v, GenerationParams& p) { return read_stop(v, p.stop); }},
      {"stop_token_ids",
       [](const json& v, GenerationParams& p) { return read_tokens(v, p.stop_token_ids); }},
      {"ignore_eos", [](const json& v, GenerationParams& p) { return read_bool(v, p.ignore_eos); }},
  };
  const auto reader = kReaders.find(name);
  if (reader == kReaders.end()) return false;
  NANOCP_RETURN_IF_ERROR(reader->second(value, params));
  return true;
}

}  // namespace nanocp::apps
