#include "apps/golden_file.h"

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>

namespace nanocp::apps {
namespace {

using nlohmann::json;
using Path = std::filesystem::path;

Result<json> read_json(const Path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return invalid_argument(path.string() + ": is a directory, not a golden file");
  }
  std::ifstream file(path);
  if (!file) return not_found(path.string() + ": " + std::strerror(errno));
  json document = json::parse(file, nullptr, false);
  if (document.is_discarded()) return invalid_argument(path.string() + ": not valid JSON");
  const bool has_cases = document.is_object() && document.contains("cases") &&
                         document["cases"].is_array() && !document["cases"].empty();
  if (!has_cases) return invalid_argument(path.string() + ": cases must be an array of cases");
  return document;
}

// One case and where it stands.
struct CaseReader {
  const json& value;
  std::string where;  // "FILE: cases[3]"
  int32_t vocab_size;

  Error wrong(const char* field, const std::string& rule) const {
    return invalid_argument(where + "." + field + " must be " + rule);
  }

  Result<const json*> array(const char* field) const {
    const auto found = value.find(field);
    if (found == value.end() || !found->is_array()) return wrong(field, "an array");
    return &*found;
  }

  Result<std::vector<TokenId>> tokens(const char* field) const {
    NANOCP_ASSIGN_OR_RETURN(const json* list, array(field));
    std::vector<TokenId> result;
    for (const json& entry : *list) {
      const bool good =
          entry.is_number_unsigned() && entry.get<uint64_t>() < static_cast<uint64_t>(vocab_size);
      if (!good) {
        return wrong(field, "token ids from 0 to " + std::to_string(vocab_size - 1));
      }
      result.push_back(entry.get<TokenId>());
    }
    return result;
  }

  Result<std::vector<float>> numbers(const char* field, size_t count) const {
    NANOCP_ASSIGN_OR_RETURN(const json* list, array(field));
    if (list->size() != count) {
      return wrong(field, std::to_string(count) + " numbers, not " + std::to_string(list->size()));
    }
    std::vector<float> result;
    result.reserve(count);
    for (const json& entry : *list) {
      if (!entry.is_number() || !std::isfinite(entry.get<float>())) return wrong(field, "numbers");
      result.push_back(entry.get<float>());
    }
    return result;
  }
};

Result<GoldenCase> read_case(const CaseReader& reader) {
  if (!reader.value.is_object()) return invalid_argument(reader.where + " must be an object");
  const auto vocab_size = static_cast<size_t>(reader.vocab_size);
  GoldenCase golden;
  NANOCP_ASSIGN_OR_RETURN(golden.prompt, reader.tokens("prompt"));
  if (golden.prompt.empty()) return reader.wrong("prompt", "at least one token");
  NANOCP_ASSIGN_OR_RETURN(golden.last_logits, reader.numbers("last_logits", vocab_size));
  NANOCP_ASSIGN_OR_RETURN(golden.greedy, reader.tokens("greedy"));
  if (golden.greedy.empty()) return reader.wrong("greedy", "at least one token");
  NANOCP_ASSIGN_OR_RETURN(golden.top2_margin, reader.numbers("top2_margin", golden.greedy.size()));
  NANOCP_ASSIGN_OR_RETURN(golden.logits_after, reader.numbers("logits_after", vocab_size));
  return golden;
}

}  // namespace

Result<std::vector<GoldenCase>> read_golden(const Path& path, int32_t vocab_size) {
  NANOCP_ASSIGN_OR_RETURN(const json document, read_json(path));
  std::vector<GoldenCase> cases;
  for (size_t i = 0; i < document["cases"].size(); ++i) {
    const CaseReader reader{.value = document["cases"][i],
                            .where = path.string() + ": cases[" + std::to_string(i) + "]",
                            .vocab_size = vocab_size};
    NANOCP_ASSIGN_OR_RETURN(GoldenCase golden, read_case(reader));
    cases.push_back(std::move(golden));
  }
  return cases;
}

}  // namespace nanocp::apps
