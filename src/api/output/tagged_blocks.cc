// Blocks that write every argument between tags: GLM-4.5's and Qwen3-Coder's. Their values become
// one JSON object.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "api/output/block_reader.h"

namespace nanocp::api {
namespace {

// The tags of a format.
struct Tags {
  std::string_view key_open;
  std::string_view key_close;
  std::string_view value_open;  // between key and value, after white space; empty: none
  std::string_view value_close;
  std::string_view end;        // of the call; it may be missing
  std::string_view block_end;  // after that
  bool line_values;            // a value's first and last line break are not part of it
};

constexpr Tags kGlmTags = {.key_open = "<arg_key>",
                           .key_close = "</arg_key>",
                           .value_open = "<arg_value>",
                           .value_close = "</arg_value>",
                           .end = "",
                           .block_end = "</tool_call>",
                           .line_values = false};
constexpr Tags kCoderTags = {.key_open = "<parameter=",
                             .key_close = ">",
                             .value_open = "",
                             .value_close = "</parameter>",
                             .end = "</function>",
                             .block_end = "</tool_call>",
                             .line_values = true};
constexpr size_t kKeyBytesMax = 256;

// `text` as it stands within a JSON string.
std::string escaped(std::string_view text) {
  const std::string quoted =
      nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return quoted.substr(1, quoted.size() - 2);
}

// A whole value of a type that is not string.
std::string as_json(std::string_view value, ArgumentType type) {
  std::string text(trimmed(value));
  const bool string_only = type == ArgumentType::kNullableString;
  if (string_only ? text == "null" : nlohmann::json::accept(text)) return text;
  // As Python writes them.
  if (!string_only && (text == "True" || text == "False")) return text == "True" ? "true" : "false";
  if (!string_only && text == "None") return "null";
  return '"' + escaped(value) + '"';
}

class TaggedReader : public BlockReader {
 public:
  TaggedReader(const Tags& tags, const ToolTypes& types) : tags_(tags), types_(types) {}

  Read read(TextBuffer& in, DeltaWriter& out) override {
    while (true) {
      const Read step = advance(in, out);
      if (step != Read::kDone || state_ == State::kDone) return step;
    }
  }

 protected:
  // Reads the function's name from behind the opening marker, up to the first argument.
  struct Head {
    Read status = Read::kReject;
    size_t num_bytes = 0;
    std::string_view name = {};
  };
  virtual Head read_head(std::string_view text, bool ended) const = 0;
  const Tags& tags() const { return tags_; }

 private:
  enum class State { kHead, kArgument, kKey, kValueOpen, kValueStart, kString, kHeld, kEnd, kDone };

  // kDone: the state has changed, go on.
  Read advance(TextBuffer& in, DeltaWriter& out) {
    switch (state_) {
      case State::kHead:
        return open(in, out);
      case State::kArgument:
        return read_argument(in, out);
      case State::kKey:
        return read_key(in, out);
      case State::kValueOpen:
        return read_value_open(in, out);
      case State::kValueStart:
        return start_value(in, out);
      case State::kString:
        return read_string(in, out);
      case State::kHeld:
        return read_held(in, out);
      case State::kEnd:
        return read_end(in);
      case State::kDone:
        break;
    }
    return Read::kDone;
  }

  Read go(State state) {
    state_ = state;
    return Read::kDone;
  }

  Read open(TextBuffer& in, DeltaWriter& out) {
    const bool ended = in.ended() || in.view().size() >= kHeadBytesMax;
    const Head head = read_head(in.view().substr(0, kHeadBytesMax), ended);
    if (head.status != Read::kDone) return head.status;
    name_ = head.name;
    in.consume(head.num_bytes);
    out.begin_call(name_);
    return go(State::kArgument);
  }

  // What comes is no argument, or nothing comes any more: then they stay as they are.
  Read close(DeltaWriter& out, bool complete) {
    if (complete) out.arguments(num_arguments_ == 0 ? "{}" : "}");
    out.end_call(complete);
    return go(complete ? State::kEnd : State::kDone);
  }

  Read read_argument(TextBuffer& in, DeltaWriter& out) {
    in.skip_leading(kWhiteSpace);
    if (in.empty() && in.ended()) return close(out, false);
    const Read key = starts_with(in, tags_.key_open);
    if (key == Read::kMore) return key;
    if (key == Read::kReject) return close(out, true);
    in.consume(tags_.key_open.size());
    return go(State::kKey);
  }

  Read read_key(TextBuffer& in, DeltaWriter& out) {
    const std::string_view text = in.view().substr(0, kKeyBytesMax + tags_.key_close.size());
    const size_t end = text.find(tags_.key_close);
    if (end == std::string_view::npos) {
      if (in.ended()) return close(out, false);
      if (text.size() < kKeyBytesMax + tags_.key_close.size()) return Read::kMore;
      return close(out, true);
    }
    key_ = trimmed(text.substr(0, end));
    in.consume(end + tags_.key_close.size());
    out.arguments(num_arguments_ == 0 ? "{\"" : ", \"");
    out.arguments(escaped(key_));
    out.arguments("\": ");
    ++num_arguments_;
    return go(tags_.value_open.empty() ? State::kValueStart : State::kValueOpen);
  }

  Read read_value_open(TextBuffer& in, DeltaWriter& out) {
    in.skip_leading(kWhiteSpace);
    const Read found = starts_with(in, tags_.value_open);
    if (found == Read::kMore) return found;
    if (found == Read::kReject) return close(out, false);
    in.consume(tags_.value_open.size());
    return go(State::kValueStart);
  }

  Read start_value(TextBuffer& in, DeltaWriter& out) {
    if (tags_.line_values) {
      if (in.empty() && !in.ended()) return Read::kMore;
      if (in.view().starts_with('\n')) in.consume(1);
    }
    type_ = types_.type_of(name_, key_);
    num_searched_ = 0;
    if (type_ != ArgumentType::kString) return go(State::kHeld);
    out.arguments("\"");
    return go(State::kString);
  }

  // A string is passed on as it comes.
  Read read_string(TextBuffer& in, DeltaWriter& out) {
    const MarkerSearch found = find_marker(in, {&tags_.value_close, 1});
    std::string_view text = in.view().substr(0, found.position);
    const bool line_end = tags_.line_values && text.ends_with('\n');
    if (found.index || !in.ended()) text.remove_suffix(line_end ? 1 : 0);
    if (!text.empty()) out.arguments(escaped(text));
    in.consume(text.size());
    if (!found.index) return in.ended() ? close(out, false) : Read::kMore;
    in.consume((line_end ? 1 : 0) + tags_.value_close.size());
    out.arguments("\"");
    return go(State::kArgument);
  }

  // Other values are held back until they are complete, so that they can be judged; one that is too
  // long for that is a string.
  Read read_held(TextBuffer& in, DeltaWriter& out) {
    const std::string_view text = in.view();
    const size_t overlap = tags_.value_close.size() - 1;
    const size_t from = num_searched_ > overlap ? num_searched_ - overlap : 0;
    const size_t end = text.find(tags_.value_close, from);
    num_searched_ = text.size();
    const size_t size_max = OutputParser::kHeldBytesMax - tags_.value_close.size();
    if (end == std::string_view::npos && text.size() < OutputParser::kHeldBytesMax) {
      if (!in.ended()) return Read::kMore;
      out.arguments(text);
      in.consume(text.size());
      return close(out, false);
    }
    if (end == std::string_view::npos || end > size_max) {
      out.arguments("\"");
      return go(State::kString);
    }
    std::string_view value = text.substr(0, end);
    if (tags_.line_values && value.ends_with('\n')) value.remove_suffix(1);
    out.arguments(as_json(value, type_));
    in.consume(end + tags_.value_close.size());
    return go(State::kArgument);
  }

  // The closing tags, as far as they are there.
  Read read_end(TextBuffer& in) {
    in.skip_leading(kWhiteSpace);
    for (const std::string_view tag : {tags_.end, tags_.block_end}) {
      if (tag.empty() || (tag == tags_.end && end_seen_)) continue;
      const Read found = starts_with(in, tag);
      if (found == Read::kMore) return found;
      if (found == Read::kReject) continue;
      in.consume(tag.size());
      if (tag == tags_.block_end) break;
      end_seen_ = true;
      in.skip_leading(kWhiteSpace);
    }
    return go(State::kDone);
  }

  const Tags& tags_;
  const ToolTypes& types_;
  State state_ = State::kHead;
  std::string name_;
  std::string key_;
  ArgumentType type_ = ArgumentType::kOther;
  int64_t num_arguments_ = 0;
  size_t num_searched_ = 0;  // of the value that is held back
  bool end_seen_ = false;
};

// NAME\n<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n...</tool_call>
class GlmReader : public TaggedReader {
 public:
  explicit GlmReader(const ToolTypes& types) : TaggedReader(kGlmTags, types) {}

 protected:
  // The name ends at the first argument or at the end of the block.
  Head read_head(std::string_view text, bool ended) const override {
    const size_t end = text.find('<');
    if (end == std::string_view::npos) return {.status = ended ? Read::kReject : Read::kMore};
    const std::string_view rest = text.substr(end);
    const std::string_view name = trimmed(text.substr(0, end));
    if (!is_function_name(name)) return {.status = Read::kReject};
    for (const std::string_view tag : {kGlmTags.key_open, kGlmTags.block_end}) {
      if (rest.starts_with(tag)) return {.status = Read::kDone, .num_bytes = end, .name = name};
    }
    const bool may_come =
        kGlmTags.key_open.starts_with(rest) || kGlmTags.block_end.starts_with(rest);
    return {.status = may_come && !ended ? Read::kMore : Read::kReject};
  }
};

// \n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n...</function>\n</tool_call>
class CoderReader : public TaggedReader {
 public:
  CoderReader(const ToolTypes& types, bool in_function)
      : TaggedReader(kCoderTags, types), in_function_(in_function) {}

 protected:
  Head read_head(std::string_view text, bool ended) const override {
    constexpr std::string_view kFunction = "<function=";
    const Read undecided = ended ? Read::kReject : Read::kMore;
    size_t start = 0;
    if (!in_function_) {
      start = text.find_first_not_of(kWhiteSpace);
      if (start == std::string_view::npos) return {.status = undecided};
      const std::string_view rest = text.substr(start);
      if (!rest.starts_with(kFunction)) {
        return {.status = kFunction.starts_with(rest) ? undecided : Read::kReject};
      }
      start += kFunction.size();
    }
    const size_t end = text.find('>', start);
    if (end == std::string_view::npos) return {.status = undecided};
    const std::string_view name = trimmed(text.substr(start, end - start));
    if (!is_function_name(name)) return {.status = Read::kReject};
    return {.status = Read::kDone, .num_bytes = end + 1, .name = name};
  }

 private:
  bool in_function_;
};

}  // namespace

std::unique_ptr<BlockReader> make_glm_reader(const ToolTypes& types) {
  return std::make_unique<GlmReader>(types);
}

std::unique_ptr<BlockReader> make_coder_reader(const ToolTypes& types, bool in_function) {
  return std::make_unique<CoderReader>(types, in_function);
}

}  // namespace nanocp::api
