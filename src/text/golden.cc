#include "text/golden.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "text/detokenizer.h"
#include "text/json_field.h"
#include "text/unicode.h"

namespace nanocp::text {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
using Difference = std::optional<std::string>;

constexpr int64_t kTokenIdMax = INT32_MAX;

std::tm golden_time() {
  std::tm time{};
  time.tm_year = 2025 - 1900;
  time.tm_mon = 7;
  time.tm_mday = 15;
  time.tm_hour = 12;
  time.tm_wday = 5;
  time.tm_yday = 226;
  return time;
}

Result<std::vector<TokenId>> parse_ids(const JsonField& field) {
  NANOCP_RETURN_IF_ERROR(field.expect_array());
  std::vector<TokenId> ids;
  for (size_t i = 0; i < field.value().size(); ++i) {
    NANOCP_ASSIGN_OR_RETURN(const int64_t id, field.element(i).integer(0, kTokenIdMax));
    ids.push_back(static_cast<TokenId>(id));
  }
  return ids;
}

Difference difference(const std::string& what, const std::vector<TokenId>& got,
                      const std::vector<TokenId>& wanted) {
  if (got == wanted) return std::nullopt;
  const auto [mine, golden] = std::mismatch(got.begin(), got.end(), wanted.begin(), wanted.end());
  const auto shown_id = [](auto at, auto end) {
    return at == end ? std::string("the end") : std::to_string(*at);
  };
  return what + " differ at " + std::to_string(mine - got.begin()) + ": " +
         shown_id(mine, got.end()) + ", golden " + shown_id(golden, wanted.end());
}

Difference difference(const std::string& what, std::string_view got, std::string_view wanted) {
  if (got == wanted) return std::nullopt;
  const auto at = static_cast<size_t>(
      std::mismatch(got.begin(), got.end(), wanted.begin(), wanted.end()).first - got.begin());
  return what + " differs at byte " + std::to_string(at) + ": " + shown(got.substr(at)) +
         ", golden " + shown(wanted.substr(at));
}

// Token by token, and whether all that came out on the way was whole characters.
Difference check_stream(const Tokenizer& tokenizer, const std::vector<TokenId>& ids,
                        const std::string& decoded) {
  Detokenizer detokenizer(tokenizer, false);
  std::string text;
  for (const TokenId id : ids) {
    const std::string part = detokenizer.push(id);
    std::string valid;
    append_valid_utf8(part, true, valid);
    if (valid != part) return "the stream holds broken UTF-8: " + shown(part);
    text += part;
  }
  text += detokenizer.flush();
  return difference("the streamed text", text, decoded);
}

Result<Difference> check_text(const JsonField& line, const Tokenizer& tokenizer) {
  NANOCP_ASSIGN_OR_RETURN(const std::string text, line.member("text").string());
  NANOCP_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, parse_ids(line.member("ids")));
  NANOCP_ASSIGN_OR_RETURN(const std::string decoded, line.member("decoded").string());
  std::string without_special = decoded;
  const JsonField plain = line.member("decoded_skip_special");
  if (!plain.is_null()) {
    NANOCP_ASSIGN_OR_RETURN(without_special, plain.string());
  }
  if (auto found = difference("ids", tokenizer.encode(text, true), ids)) return found;
  if (auto found = difference("the text", tokenizer.decode(ids, false), decoded)) return found;
  if (auto found = difference("the text without special tokens", tokenizer.decode(ids, true),
                              without_special)) {
    return found;
  }
  return check_stream(tokenizer, ids, decoded);
}

Difference check_error(const Result<std::string>& rendered, const std::string& wanted) {
  if (rendered.ok()) return "the template gave a text, golden the error " + shown(wanted);
  // The message follows the name of the template.
  if (rendered.error().message.ends_with(": " + wanted)) return std::nullopt;
  return "the error is '" + rendered.error().message + "', golden '" + wanted + "'";
}

Result<Difference> check_chat(const JsonField& line, const ordered_json& chat,
                              const GoldenSubject& subject) {
  ChatOptions options{.add_generation_prompt = true, .now = golden_time(), .limits = {}};
  NANOCP_ASSIGN_OR_RETURN(options.add_generation_prompt,
                          line.member("add_generation_prompt").boolean(false));
  const ordered_json none;
  const auto member = [&](const char* key) -> const ordered_json& {
    const auto found = chat.find(key);
    return found == chat.end() ? none : *found;
  };
  const Result<std::string> rendered =
      subject.chat_template->render(member("messages"), member("tools"), member("kwargs"), options);
  if (!line.member("error").is_null()) {
    NANOCP_ASSIGN_OR_RETURN(const std::string wanted, line.member("error").string());
    return check_error(rendered, wanted);
  }
  if (!rendered.ok()) return Difference(rendered.error().message);
  NANOCP_ASSIGN_OR_RETURN(const std::string wanted, line.member("rendered").string());
  if (auto found = difference("the rendered text", rendered.value(), wanted)) return found;
  const JsonField ids = line.member("ids");
  if (ids.is_null()) return Difference();
  if (subject.tokenizer == nullptr) return ids.invalid("needs a tokenizer.json");
  NANOCP_ASSIGN_OR_RETURN(const std::vector<TokenId> wanted_ids, parse_ids(ids));
  return difference("ids", subject.tokenizer->encode(rendered.value(), true), wanted_ids);
}

Status check_line(std::string_view content, const std::string& name, const GoldenSubject& subject,
                  GoldenReport& report) {
  NANOCP_ASSIGN_OR_RETURN(const json document, parse_json(content, name));
  const JsonField line(document, name);
  NANOCP_RETURN_IF_ERROR(line.expect_object());
  NANOCP_ASSIGN_OR_RETURN(const std::string id, line.member("id").string());
  NANOCP_ASSIGN_OR_RETURN(const std::string kind, line.member("kind").string());
  Difference found;
  if (kind == "text") {
    ++report.num_texts;
    if (subject.tokenizer == nullptr) return line.invalid("needs a tokenizer.json");
    NANOCP_ASSIGN_OR_RETURN(found, check_text(line, *subject.tokenizer));
  } else if (kind == "chat") {
    ++report.num_chats;
    if (subject.chat_template == nullptr) return line.invalid("needs a chat template");
    // Once more, with the order of keys kept.
    NANOCP_ASSIGN_OR_RETURN(found, check_chat(line, ordered_json::parse(content), subject));
  } else {
    return line.member("kind").invalid("must be text or chat");
  }
  if (found) report.failures.push_back({id, *found});
  return ok_status();
}

}  // namespace

Result<GoldenReport> check_goldens(std::string_view content, const std::string& name,
                                   const GoldenSubject& subject) {
  GoldenReport report;
  for (int64_t number = 1; !content.empty(); ++number) {
    const size_t end = std::min(content.find('\n'), content.size());
    const std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    if (line.empty()) continue;
    NANOCP_RETURN_IF_ERROR(
        check_line(line, name + " line " + std::to_string(number), subject, report));
  }
  return report;
}

}  // namespace nanocp::text
