// Blocks whose arguments stand as they are between markers of their own: DeepSeek's and Kimi's.
#include <array>
#include <optional>
#include <string>
#include <utility>

#include "api/output/block_reader.h"

namespace nanocp::api {
namespace {

// The name of a call, and where its arguments start.
struct MarkerHead {
  Read status = Read::kReject;
  size_t num_bytes = 0;
  std::string name = {};
  std::string id = {};
  std::string_view trimmed_end = kWhiteSpace;  // what is dropped at the end of the arguments
};

// Arguments up to the first of several markers. The first of them belongs to the block, the others
// start something else.
class MarkerReader : public BlockReader {
 public:
  explicit MarkerReader(std::span<const std::string_view> end_markers)
      : end_markers_(end_markers) {}

  Read read(TextBuffer& in, DeltaWriter& out) override {
    if (!in_arguments_) {
      const bool ended = in.ended() || in.view().size() >= kHeadBytesMax;
      MarkerHead head = read_head(in.view().substr(0, kHeadBytesMax), ended);
      if (head.status != Read::kDone) return head.status;
      in.consume(head.num_bytes);
      out.begin_call(std::move(head.name), std::move(head.id));
      trimmed_end_ = head.trimmed_end;
      in_arguments_ = true;
    }
    const MarkerSearch found = find_marker(in, end_markers_);
    const std::string_view text = in.view().substr(0, found.position);
    size_t num_held = trailing(text, trimmed_end_);
    if (!found.index && in.ended()) num_held = 0;
    out.arguments(text.substr(0, text.size() - num_held));
    in.consume(text.size() - num_held);
    if (!found.index && !in.ended()) return Read::kMore;
    in.consume(num_held);
    if (found.index == 0) in.consume(end_markers_[0].size());
    out.end_call();
    return Read::kDone;
  }

 protected:
  // What `text`, behind the opening marker, starts with; `ended`: this is all.
  virtual MarkerHead read_head(std::string_view text, bool ended) const = 0;

  // Whether arguments may start at `position` after white space: with a brace, or with the end of
  // the call. `position` is then that of the brace or end.
  Read find_arguments(std::string_view text, bool ended, size_t& position) const {
    const size_t start = text.find_first_not_of(kWhiteSpace, position);
    if (start == std::string_view::npos) return ended ? Read::kReject : Read::kMore;
    position = start;
    const std::string_view rest = text.substr(start);
    if (rest.front() == '{' || rest.starts_with(end_markers_[0])) return Read::kDone;
    return !ended && end_markers_[0].starts_with(rest) ? Read::kMore : Read::kReject;
  }

 private:
  std::span<const std::string_view> end_markers_;
  std::string_view trimmed_end_;
  bool in_arguments_ = false;
};

constexpr std::array<std::string_view, 3> kDeepseekEnds = {
    "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>"};

// V3 and R1: function<｜tool▁sep｜>NAME\n```json\n{...}\n```. V3.1: NAME<｜tool▁sep｜>{...}. What
// follows the separator tells which.
class DeepseekReader : public MarkerReader {
 public:
  DeepseekReader() : MarkerReader(kDeepseekEnds) {}

 protected:
  MarkerHead read_head(std::string_view text, bool ended) const override {
    const Read undecided = ended ? Read::kReject : Read::kMore;
    constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
    const size_t separator = text.find(kSeparator);
    if (separator == std::string_view::npos) return {.status = undecided};
    size_t position = separator + kSeparator.size();
    std::string_view name = trimmed(text.substr(0, separator));
    const Read plain = find_arguments(text, ended, position);
    if (plain != Read::kReject) return head(plain, position, name, kWhiteSpace);

    const size_t line_end = text.find('\n', position);
    if (line_end == std::string_view::npos) return {.status = undecided};
    name = trimmed(text.substr(position, line_end - position));
    position = line_end + 1;
    const Read fence = skip_fence(text, ended, position);
    if (fence != Read::kDone) return {.status = fence};
    const Read fenced = find_arguments(text, ended, position);
    return head(fenced, position, name, " \t\r\n`");
  }

 private:
  static MarkerHead head(Read status, size_t position, std::string_view name,
                         std::string_view trimmed_end) {
    if (status != Read::kDone) return {.status = status};
    if (!is_function_name(name)) return {.status = Read::kReject};
    return {.status = Read::kDone,
            .num_bytes = position,
            .name = std::string(name),
            .id = {},
            .trimmed_end = trimmed_end};
  }

  static Read skip_fence(std::string_view text, bool ended, size_t& position) {
    constexpr std::string_view kFence = "```json";
    const std::string_view rest = text.substr(position);
    if (rest.starts_with(kFence)) position += kFence.size();
    return !ended && rest.size() < kFence.size() && kFence.starts_with(rest) ? Read::kMore
                                                                             : Read::kDone;
  }
};

constexpr std::array<std::string_view, 3> kKimiEnds = {
    "<|tool_call_end|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"};

// functions.NAME:INDEX<|tool_call_argument_begin|>{...}. The first part is the call's id: the chat
// template shows it with the result of the call.
class KimiReader : public MarkerReader {
 public:
  KimiReader() : MarkerReader(kKimiEnds) {}

 protected:
  MarkerHead read_head(std::string_view text, bool ended) const override {
    constexpr std::string_view kSeparator = "<|tool_call_argument_begin|>";
    const size_t separator = text.find(kSeparator);
    if (separator == std::string_view::npos) {
      return {.status = ended ? Read::kReject : Read::kMore};
    }
    size_t position = separator + kSeparator.size();
    const Read arguments = find_arguments(text, ended, position);
    if (arguments != Read::kDone) return {.status = arguments};
    const std::string_view id = trimmed(text.substr(0, separator));
    std::string_view name = id;
    constexpr std::string_view kNamespace = "functions.";
    if (name.starts_with(kNamespace)) name.remove_prefix(kNamespace.size());
    name = name.substr(0, name.rfind(':'));
    if (!is_function_name(id) || !is_function_name(name)) return {.status = Read::kReject};
    return {.status = Read::kDone,
            .num_bytes = position,
            .name = std::string(name),
            .id = std::string(id)};
  }
};

}  // namespace

std::unique_ptr<BlockReader> make_deepseek_reader() {
  return std::make_unique<DeepseekReader>();
}

std::unique_ptr<BlockReader> make_kimi_reader() {
  return std::make_unique<KimiReader>();
}

}  // namespace nanocp::api
