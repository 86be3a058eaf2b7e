#include "load/answer_reader.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

namespace nanocp::load {
namespace {

using nlohmann::json;

constexpr size_t kDetailBytesMax = 300;
constexpr size_t kErrorBodyBytesMax = size_t{64} << 10;
constexpr int64_t kTokensMax = int64_t{1} << 40;

// A count in a usage object, or -1.
int64_t count_of(const json& usage, const char* name) {
  const auto at = usage.find(name);
  if (at == usage.end() || !at->is_number_integer()) return -1;
  const auto count = at->get<int64_t>();
  return count >= 0 && count <= kTokensMax ? count : -1;
}

bool has_text(const json& object, const char* name) {
  const auto at = object.find(name);
  return at != object.end() && at->is_string() && !at->get_ref<const std::string&>().empty();
}

// Whether a choice brings something that the model wrote.
bool brings_text(const json& choice) {
  if (has_text(choice, "text")) return true;
  const auto delta = choice.find("delta");
  if (delta == choice.end() || !delta->is_object()) return false;
  const auto calls = delta->find("tool_calls");
  return has_text(*delta, "content") || has_text(*delta, "reasoning_content") ||
         has_text(*delta, "reasoning") ||
         (calls != delta->end() && calls->is_array() && !calls->empty());
}

// What an event's choices say together.
struct Choices {
  int num = 0;
  bool bring_text = false;
  bool are_finished = false;  // one of them
};

Choices read_choices(const json& event) {
  Choices result;
  const auto choices = event.find("choices");
  if (choices == event.end() || !choices->is_array()) return result;
  for (const json& choice : *choices) {
    if (!choice.is_object()) continue;
    ++result.num;
    result.bring_text = result.bring_text || brings_text(choice);
    const auto reason = choice.find("finish_reason");
    result.are_finished = result.are_finished || (reason != choice.end() && reason->is_string());
  }
  return result;
}

}  // namespace

std::string shortened(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kDetailBytesMax)) {
    const bool is_control = static_cast<unsigned char>(c) < ' ' || c == '\x7f';
    out += is_control ? ' ' : c;
  }
  return text.size() > kDetailBytesMax ? out.append("...") : out;
}

std::string error_text(std::string_view body) {
  const json document = json::parse(body, nullptr, false);
  if (document.is_object()) {
    // OpenAI's form, and what some servers make of it.
    const auto error = document.find("error");
    const json& holder = error != document.end() && error->is_object() ? *error : document;
    for (const char* name : {"message", "detail", "error"}) {
      if (has_text(holder, name)) return shortened(holder[name].get_ref<const std::string&>());
    }
  }
  return shortened(body);
}

void AnswerReader::take_head(int status, std::string_view content_type) {
  status_ = status;
  std::string type(content_type.substr(0, content_type.find(';')));
  std::transform(type.begin(), type.end(), type.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  while (type.ends_with(' ')) type.pop_back();
  is_stream_ = status == 200 && type == "text/event-stream";
}

bool AnswerReader::take_body(std::string_view bytes, int64_t& num_new_tokens) {
  num_new_tokens = 0;
  if (!is_stream_) {
    body_ += bytes.substr(0, kErrorBodyBytesMax - std::min(kErrorBodyBytesMax, body_.size()));
    return true;
  }
  const int64_t num_before = num_seen_;
  const bool is_fine = events_.push(bytes, [&](std::string_view data) { take_event(data); });
  if (!is_fine) return fail("malformed_answer", "an event of more than 16 MiB");
  num_new_tokens = num_seen_ - num_before;
  return error_.empty();
}

void AnswerReader::take_event(std::string_view data) {
  if (!error_.empty()) return;
  if (data == "[DONE]") {
    is_done_ = true;
    return;
  }
  const json event = json::parse(data, nullptr, false);
  if (!event.is_object()) {
    fail("malformed_answer", "an event that is no JSON object: " + shortened(data));
    return;
  }
  const auto error = event.find("error");
  if (error != event.end() && !error->is_null()) {
    fail("stream_error", error_text(data));
    return;
  }
  const Choices choices = read_choices(event);
  is_finished_ = is_finished_ || choices.are_finished;
  int64_t num_new = choices.bring_text ? 1 : 0;
  const auto usage = event.find("usage");
  if (usage != event.end() && usage->is_object()) {
    const int64_t num_output = count_of(*usage, "completion_tokens");
    num_prompt_tokens_ = std::max(num_prompt_tokens_, count_of(*usage, "prompt_tokens"));
    if (num_output > 0) {
      // Beside choices it tells how many tokens these bring; alone it is the sum at the end.
      if (choices.num > 0) num_new = std::max<int64_t>(0, num_output - num_seen_);
      has_usage_ = true;
      num_reported_ = num_output;
    }
  }
  num_seen_ += num_new;
}

void AnswerReader::finish() {
  if (!error_.empty()) return;
  if (status_ != 200) {
    fail("http_" + std::to_string(status_), error_text(body_));
  } else if (!is_stream_) {
    fail("not_a_stream", "the answer is no event stream: " + shortened(body_));
  } else if (!is_done_ && !is_finished_) {
    fail("stream_cut", "the stream ended without a finish_reason or [DONE]");
  } else if (num_seen_ == 0) {
    fail("no_tokens", "the stream brought no text");
  }
}

bool AnswerReader::fail(std::string kind, std::string detail) {
  error_ = std::move(kind);
  detail_ = std::move(detail);
  return false;
}

}  // namespace nanocp::load
