// Blocks whose calls are JSON: Qwen3's (as in Hermes) and Mistral's.
#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "api/output/block_reader.h"

namespace nanocp::api {
namespace {

constexpr std::string_view kHermesCloser = "</tool_call>";

// \n{"name": ..., "arguments": {...}}\n</tool_call>
class HermesReader : public BlockReader {
 public:
  Read read(TextBuffer& in, DeltaWriter& out) override {
    if (!in_closer_) {
      const Read call = call_.read(in, out);
      if (call != Read::kDone) return call;
      in_closer_ = true;
    }
    // Where the closing marker is missing, the block ends all the same.
    in.skip_leading(kWhiteSpace);
    const Read closer = starts_with(in, kHermesCloser);
    if (closer == Read::kMore) return closer;
    if (closer == Read::kDone) in.consume(kHermesCloser.size());
    return Read::kDone;
  }

 private:
  bool in_closer_ = false;
  JsonCall call_{kHermesCloser};
};

// Either a list, [{"name": ..., "arguments": {...}}, ...], or, since the eleventh version of
// Mistral's tokenizers, NAME[ARGS]{...}, NAME[CALL_ID]ID[ARGS]{...} or NAME{...}.
class MistralReader : public BlockReader {
 public:
  Read read(TextBuffer& in, DeltaWriter& out) override {
    if (kind_ == Kind::kUnknown) {
      const std::string_view text = in.view().substr(0, kHeadBytesMax);
      const size_t start = text.find_first_not_of(kWhiteSpace);
      if (start == std::string_view::npos) return undecided(in, text);
      if (text[start] != '[') {
        const Read head = read_named_head(in, out, text, start);
        if (head != Read::kDone) return head;
        kind_ = Kind::kNamed;
      } else {
        kind_ = Kind::kList;
      }
    }
    if (kind_ == Kind::kList) return list_.read(in, out);
    const Read arguments = arguments_.read(in, out);
    if (arguments == Read::kDone) out.end_call();
    return arguments;
  }

 private:
  static Read undecided(const TextBuffer& in, std::string_view text) {
    return in.ended() || text.size() == kHeadBytesMax ? Read::kReject : Read::kMore;
  }

  // Consumes up to the brace that opens the arguments.
  static Read read_named_head(TextBuffer& in, DeltaWriter& out, std::string_view text,
                              size_t start) {
    const size_t brace = text.find('{', start);
    if (brace == std::string_view::npos) return undecided(in, text);
    constexpr std::string_view kArguments = "[ARGS]";
    constexpr std::string_view kId = "[CALL_ID]";
    std::string_view name = trimmed(text.substr(start, brace - start));
    std::string_view id;
    if (name.ends_with(kArguments)) name.remove_suffix(kArguments.size());
    if (const size_t at = name.find(kId); at != std::string_view::npos) {
      id = trimmed(name.substr(at + kId.size()));
      name = name.substr(0, at);
    }
    name = trimmed(name);
    if (!is_function_name(name) || (!id.empty() && !is_function_name(id))) return Read::kReject;
    out.begin_call(std::string(name), std::string(id));
    in.consume(brace);
    return Read::kDone;
  }

  enum class Kind { kUnknown, kList, kNamed };
  Kind kind_ = Kind::kUnknown;
  JsonCallList list_;
  JsonArguments arguments_{""};
};

}  // namespace

Read JsonCallList::read(TextBuffer& in, DeltaWriter& out) {
  if (state_ == State::kOpen) {
    const std::string_view text = in.view().substr(0, kHeadBytesMax);
    const size_t start = text.find_first_not_of(kWhiteSpace);
    if (start != std::string_view::npos && text[start] != '[') return Read::kReject;
    if (start == std::string_view::npos) {
      return in.ended() || text.size() == kHeadBytesMax ? Read::kReject : Read::kMore;
    }
    const Read call = call_.read(in, out, start + 1);
    if (!call_.started()) return call;
    state_ = State::kCall;
    if (call != Read::kDone) return call;
    state_ = State::kBetween;
  }
  while (true) {
    if (state_ == State::kBetween) {
      in.skip_leading(" \t\r\n,");
      if (in.empty()) return in.ended() ? Read::kDone : Read::kMore;
      const char next = in.view().front();
      if (next == ']') in.consume(1);
      if (next != '{') return Read::kDone;
      call_ = JsonCall("");
      state_ = State::kCall;
    }
    const Read call = call_.read(in, out);
    if (call == Read::kMore) return call;
    if (call == Read::kReject) return Read::kDone;
    state_ = State::kBetween;
  }
}

std::unique_ptr<BlockReader> make_hermes_reader() {
  return std::make_unique<HermesReader>();
}

std::unique_ptr<BlockReader> make_mistral_reader() {
  return std::make_unique<MistralReader>();
}

}  // namespace nanocp::api
