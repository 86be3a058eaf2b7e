#include "apps/prompt_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

namespace nanocp::apps {
namespace {

using nlohmann::json;

Status set_prompt(const json& value, Prompt& prompt) {
  if (value.is_string()) {
    prompt.text = value.get<std::string>();
    return ok_status();
  }
  const Error error = invalid_argument("must be a text, or an array of token ids");
  if (!value.is_array() || value.empty()) return error;
  for (const json& token : value) {
    if (!token.is_number_unsigned() || token.get<uint64_t>() > INT32_MAX) return error;
    prompt.token_ids.push_back(token.get<TokenId>());
  }
  return ok_status();
}

Status set_field(const std::string& name, const json& value, Prompt& prompt) {
  if (name == "prompt") return set_prompt(value, prompt);
  NANOCP_ASSIGN_OR_RETURN(const bool known, set_generation_param(name, value, prompt.params));
  if (!known) return invalid_argument("is not a known field");
  return ok_status();
}

Result<Prompt> parse_line(const std::string& line, const std::string& source,
                          const GenerationParams& defaults) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object()) return invalid_argument(source + ": not a JSON object");
  Prompt prompt{.source = source, .text = {}, .token_ids = {}, .params = defaults};
  if (!object.contains("prompt")) return invalid_argument(source + ": has no \"prompt\"");
  for (const auto& [name, value] : object.items()) {
    const Status status = set_field(name, value, prompt);
    if (!status.ok()) {
      return invalid_argument(source + ": " + json(name).dump() + " " + status.error().message);
    }
  }
  return prompt;
}

}  // namespace

Result<std::vector<Prompt>> read_prompt_file(const std::filesystem::path& path,
                                             const GenerationParams& defaults) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return invalid_argument(path.string() + ": is a directory, not a file of prompts");
  }
  std::ifstream file(path);
  if (!file) return not_found(path.string() + ": " + std::strerror(errno));
  std::vector<Prompt> prompts;
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string source = path.string() + ":" + std::to_string(number);
    NANOCP_ASSIGN_OR_RETURN(Prompt prompt, parse_line(line, source, defaults));
    prompts.push_back(std::move(prompt));
  }
  if (prompts.empty()) return invalid_argument(path.string() + ": has no prompts");
  return prompts;
}

}  // namespace nanocp::apps
