#include "api/output/tag_parser.h"

#include <algorithm>

namespace nanocp::api {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kEndThink = "</think>";
constexpr std::string_view kLineBreak = "\n";

}  // namespace

TagParser::TagParser(const OutputParserOptions& options)
    : format_(options.tool_choice == ToolChoice::kAuto ? options.format.tool_calls
                                                       : ToolCallFormat::kNone),
      types_(options.tools),
      forced_(options),
      out_(call_options(options)),
      state_(State::kStart) {
  const BlockMarkers markers = block_markers(format_);
  markers_.assign(markers.openers.begin(), markers.openers.end());
  num_openers_ = markers_.size();
  markers_.insert(markers_.end(), markers.sections.begin(), markers.sections.end());

  const std::string_view prompt = trimmed(options.rendered_prompt);
  const bool opened = prompt.ends_with(kThink);
  if (options.format.reasoning == ReasoningFormat::kNone || prompt.ends_with(kEndThink)) {
    leave_reasoning();
  } else if (opened || options.format.reasoning == ReasoningFormat::kThinkFirst) {
    state_ = State::kReasoning;
    skipped_ = kLineBreak;
    think_may_come_ = !opened;
  }
}

OutputDelta TagParser::push(std::string_view text) {
  in_.push(text);
  advance();
  return out_.take();
}

OutputDelta TagParser::flush() {
  in_.end();
  advance();
  return out_.take();
}

void TagParser::advance() {
  bool goes_on = true;
  while (goes_on) {
    in_.skip_leading(skipped_);
    if (in_.empty() && !in_.ended()) return;
    if (!in_.empty()) skipped_ = {};
    switch (state_) {
      case State::kStart:
        goes_on = read_start();
        break;
      case State::kReasoning:
        goes_on = read_reasoning();
        break;
      case State::kContent:
        goes_on = read_content();
        break;
      case State::kBlock:
        goes_on = read_block();
        break;
      case State::kForced:
        goes_on = read_forced();
        break;
    }
  }
}

void TagParser::leave_reasoning() {
  state_ = forced_.active() ? State::kForced : State::kContent;
}

// White space and <think>, or no thoughts.
bool TagParser::read_start() {
  const std::string_view text = in_.view();
  const size_t start = std::min(text.find_first_not_of(kWhiteSpace), text.size());
  const std::string_view rest = text.substr(start);
  if (start <= kTrimmedBytesMax && rest.starts_with(kThink)) {
    in_.consume(start + kThink.size());
    skipped_ = kLineBreak;
    state_ = State::kReasoning;
    return true;
  }
  if (start <= kTrimmedBytesMax && !in_.ended() && kThink.starts_with(rest)) return false;
  leave_reasoning();
  return true;
}

bool TagParser::read_reasoning() {
  if (think_may_come_) {
    const Read tag = starts_with(in_, kThink);
    if (tag == Read::kMore) return false;
    think_may_come_ = false;
    if (tag == Read::kDone) {
      in_.consume(kThink.size());
      skipped_ = kLineBreak;
      return true;
    }
  }
  const MarkerSearch found = find_marker(in_, {&kEndThink, 1});
  const std::string_view text = in_.view().substr(0, found.position);
  const size_t num_held = found.index || !in_.ended() ? trailing(text, kLineBreak) : 0;
  out_.reasoning(text.substr(0, text.size() - num_held));
  in_.consume(text.size() - num_held);
  if (!found.index) return false;
  in_.consume(num_held + kEndThink.size());
  skipped_ = kLineBreak;
  leave_reasoning();
  return true;
}

bool TagParser::read_content() {
  if (format_ == ToolCallFormat::kNone) {
    out_.content(in_.view());
    in_.consume(in_.view().size());
    return false;
  }
  const MarkerSearch found = find_marker(in_, markers_);
  const std::string_view text = in_.view().substr(0, found.position);
  const size_t num_held = found.index || !in_.ended() ? trailing(text, kWhiteSpace) : 0;
  out_.content(text.substr(0, text.size() - num_held));
  in_.consume(text.size() - num_held);
  if (!found.index) return false;
  const size_t num_opener = num_held + markers_[*found.index].size();
  if (*found.index < num_openers_) {
    opener_ = in_.view().substr(0, num_opener);
    block_ = make_block_reader(format_, *found.index, types_);
    state_ = State::kBlock;
  } else {
    skipped_ = kWhiteSpace;
  }
  in_.consume(num_opener);
  return true;
}

bool TagParser::read_block() {
  const Read block = block_->read(in_, out_);
  if (block == Read::kMore) return false;
  if (block == Read::kReject) {
    out_.content(opener_);
  } else {
    skipped_ = kWhiteSpace;
  }
  block_.reset();
  state_ = State::kContent;
  return true;
}

bool TagParser::read_forced() {
  forced_.write(in_.view(), out_);
  in_.consume(in_.view().size());
  if (in_.ended()) forced_.end(out_);
  return false;
}

}  // namespace nanocp::api
