#include "api/output/json_call.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

namespace nanocp::api {
namespace {

constexpr size_t kNameBytesMax = 256;

// Reads forward through the start of an object. Once the text was too short, every further read
// fails.
class HeadCursor {
 public:
  explicit HeadCursor(std::string_view text) : text_(text) {}

  bool ran_out() const { return ran_out_; }
  size_t position() const { return position_; }

  // The next character that is not white space, not taken; 0 at the end.
  char peek() {
    position_ = std::min(text_.find_first_not_of(kWhiteSpace, position_), text_.size());
    if (position_ < text_.size()) return text_[position_];
    ran_out_ = true;
    return '\0';
  }

  bool take(char expected) {
    if (peek() != expected) return false;
    ++position_;
    return true;
  }

  std::optional<std::string> string() {
    if (peek() != '"') return std::nullopt;
    const std::string_view quoted = skip_string();
    const auto value = nlohmann::json::parse(quoted, nullptr, false);
    if (!value.is_string()) return std::nullopt;
    return value.get<std::string>();
  }

  // Empty where there is no value, or not all of it.
  std::string_view value() {
    const char first = peek();
    if (first == '"') return skip_string();
    const size_t start = position_;
    if (first == '{' || first == '[') {
      JsonScanner scanner;
      while (!scanner.done()) {
        if (position_ == text_.size()) return fail();
        position_ += std::max<size_t>(scanner.scan(text_.substr(position_)), 1);
      }
      return text_.substr(start, position_ - start);
    }
    const size_t end = text_.find_first_of(",}] \t\r\n", start);
    if (end == std::string_view::npos) return fail();
    position_ = end;
    return text_.substr(start, end - start);
  }

 private:
  std::string_view fail() {
    ran_out_ = true;
    return {};
  }

  // Requires: at a quote.
  std::string_view skip_string() {
    for (size_t i = position_ + 1; i < text_.size(); ++i) {
      if (text_[i] == '\\') {
        ++i;
      } else if (text_[i] == '"') {
        const std::string_view quoted = text_.substr(position_, i + 1 - position_);
        position_ = i + 1;
        return quoted;
      }
    }
    return fail();
  }

  std::string_view text_;
  size_t position_ = 0;
  bool ran_out_ = false;
};

// Reads one member. False: it is not one. `head` is kDone once the arguments are to come.
bool read_member(HeadCursor& cursor, JsonHead& head) {
  const std::optional<std::string> key = cursor.string();
  if (!key || !cursor.take(':')) return false;
  if (*key == "name") {
    const std::optional<std::string> name = cursor.string();
    if (!name || !is_function_name(*name)) return false;
    head.name = *name;
    return true;
  }
  if (*key != "arguments" && *key != "parameters") return !cursor.value().empty();
  if (cursor.peek() != '{') return false;
  if (!head.name.empty()) {
    head.status = Read::kDone;
    return true;
  }
  head.arguments = cursor.value();
  return !head.arguments.empty();
}

bool read_members(HeadCursor& cursor, JsonHead& head) {
  if (!cursor.take('{')) return false;
  if (!read_member(cursor, head)) return false;
  while (head.status != Read::kDone) {
    if (cursor.take('}')) {
      head.closed = true;
      head.status = Read::kDone;
      return !head.name.empty();
    }
    if (!cursor.take(',') || !read_member(cursor, head)) return false;
  }
  return true;
}

}  // namespace

size_t JsonScanner::scan(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      if (--depth_ > 0) continue;
      done_ = true;
      return i + 1;
    } else if (c == '<') {
      return i;
    }
  }
  return text.size();
}

bool is_function_name(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax &&
         std::none_of(name.begin(), name.end(), [](char c) {
           return static_cast<unsigned char>(c) <= ' ' ||
                  std::string_view("\"<>{}[]").find(c) != std::string_view::npos;
         });
}

JsonHead read_json_head(std::string_view text, bool ended) {
  text = text.substr(0, kHeadBytesMax);
  HeadCursor cursor(text);
  JsonHead head;
  if (!read_members(cursor, head)) {
    const bool may_come = cursor.ran_out() && !ended && text.size() < kHeadBytesMax;
    return {.status = may_come ? Read::kMore : Read::kReject};
  }
  head.num_bytes = cursor.position();
  return head;
}

Read JsonArguments::read(TextBuffer& in, DeltaWriter& out) {
  while (true) {
    const std::string_view text = in.view();
    const size_t size = scanner_.scan(text);
    out.arguments(text.substr(0, size));
    in.consume(size);
    if (scanner_.done()) return Read::kDone;
    if (in.empty()) return in.ended() ? Read::kDone : Read::kMore;
    const Read marker = end_marker_.empty() ? Read::kReject : starts_with(in, end_marker_);
    if (marker != Read::kReject) return marker;
    out.arguments(in.view().substr(0, 1));
    in.consume(1);
  }
}

Read JsonCall::read_head(TextBuffer& in, DeltaWriter& out, size_t num_before) {
  JsonHead head = read_json_head(in.view().substr(num_before), in.ended());
  if (head.status != Read::kDone) return head.status;
  out.begin_call(std::move(head.name));
  if (head.closed) {
    out.arguments(head.arguments);
    out.end_call();
  }
  in.consume(num_before + head.num_bytes);
  state_ = State::kArguments;
  return head.closed ? Read::kDone : Read::kMore;
}

Read JsonCall::read_tail(TextBuffer& in) {
  if (state_ == State::kTailStart) {
    in.skip_leading(kWhiteSpace);
    if (in.empty()) return in.ended() ? Read::kDone : Read::kMore;
    const char next = in.view().front();
    if (next != ',' && next != '}') return Read::kDone;
    state_ = State::kTail;
  }
  while (!tail_.done()) {
    in.consume(tail_.scan(in.view()));
    if (tail_.done()) break;
    if (in.empty()) return in.ended() ? Read::kDone : Read::kMore;
    const Read marker = end_marker_.empty() ? Read::kReject : starts_with(in, end_marker_);
    if (marker != Read::kReject) return marker;
    in.consume(1);
  }
  return Read::kDone;
}

Read JsonCall::read(TextBuffer& in, DeltaWriter& out, size_t num_before) {
  if (state_ == State::kHead) {
    const Read head = read_head(in, out, num_before);
    if (state_ == State::kHead || head == Read::kDone) return head;
  }
  if (state_ == State::kArguments) {
    const Read arguments = arguments_.read(in, out);
    if (arguments != Read::kDone) return arguments;
    out.end_call();
    state_ = State::kTailStart;
  }
  return read_tail(in);
}

}  // namespace nanocp::api
