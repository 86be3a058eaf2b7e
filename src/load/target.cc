#include "load/target.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace nanocp::load {
namespace {

using nlohmann::json;

// A header's value must not end the header.
bool is_header_text(const std::string& text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c != '\x7f'; });
}

// Without the closing brace, so that more members can follow.
std::string open_object(const json& object) {
  std::string text = object.dump();
  text.pop_back();
  return text;
}

}  // namespace

Result<Target> Target::make(const TargetOptions& options) {
  const json extra =
      options.extra_body.empty() ? json::object() : json::parse(options.extra_body, nullptr, false);
  if (!extra.is_object()) {
    return invalid_argument(
        "--extra-body is no JSON object; write it as in --extra-body '{\"temperature\": 0}'");
  }
  for (const char* name : {"prompt", "messages", "stream"}) {
    if (extra.contains(name)) {
      return invalid_argument(std::string("--extra-body: \"") + name + "\" is set by the command");
    }
  }
  if (!is_header_text(options.api_key)) {
    return invalid_argument("--api-key holds a control character");
  }
  Target target;
  target.options_ = options;
  target.has_length_ = extra.contains("max_tokens") || extra.contains("max_completion_tokens");
  json body = {
      {"model", options.model}, {"stream", true}, {"stream_options", {{"include_usage", true}}}};
  if (options.ignores_eos) body["ignore_eos"] = true;
  body.merge_patch(extra);  // null takes a member away
  target.shared_ = open_object(body);
  body["stream"] = false;
  for (const char* name : {"stream_options", "max_tokens", "max_completion_tokens"}) {
    body.erase(name);
  }
  target.probe_shared_ = open_object(body);
  return target;
}

http_client::Request Target::request(const std::string& prompt, int64_t num_output_tokens) const {
  return post(shared_, prompt, has_length_ ? 0 : num_output_tokens);
}

http_client::Request Target::probe(const std::string& prompt) const {
  return post(probe_shared_, prompt, 1);
}

http_client::Request Target::post(const std::string& shared, const std::string& prompt,
                                  int64_t num_output_tokens) const {
  const bool is_chat = options_.api == Api::kChat;
  http_client::Request request = get(is_chat ? "chat/completions" : "completions");
  request.method = "POST";
  request.headers.emplace_back("Content-Type", "application/json");
  std::string& body = request.body;
  body.reserve(shared.size() + prompt.size() + 64);
  body.append(shared).append(is_chat ? ",\"messages\":" : ",\"prompt\":").append(prompt);
  if (num_output_tokens > 0) {
    body.append(",\"max_tokens\":").append(std::to_string(num_output_tokens));
  }
  body += '}';
  return request;
}

http_client::Request Target::get(const std::string& name) const {
  http_client::Request request{.method = "GET", .target = options_.base_path + "/" + name};
  if (!options_.api_key.empty()) {
    request.headers.emplace_back("Authorization", "Bearer " + options_.api_key);
  }
  return request;
}

}  // namespace nanocp::load
