#include "api/output/harmony_parser.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace nanocp::api {
namespace {

constexpr std::string_view kStart = "<|start|>";
constexpr std::string_view kChannel = "<|channel|>";
constexpr std::string_view kMessage = "<|message|>";
constexpr std::string_view kFunctions = "functions.";
constexpr std::string_view kLineBreak = "\n";
constexpr size_t kHeaderBytesMax = 1024;

// The first ends a header, the others break it off.
constexpr std::array<std::string_view, 5> kHeaderMarkers = {kMessage, kStart, "<|end|>", "<|call|>",
                                                            "<|return|>"};
// The first three end a message, the others start the next one.
constexpr std::array<std::string_view, 5> kBodyMarkers = {"<|end|>", "<|call|>", "<|return|>",
                                                          kStart, kChannel};
constexpr size_t kNumBodyEnds = 3;

// What follows `key` in a header, up to white space or a marker.
std::string_view header_field(std::string_view header, std::string_view key) {
  const size_t at = header.find(key);
  if (at == std::string_view::npos) return {};
  header.remove_prefix(at + key.size());
  return header.substr(0, header.find_first_of(" \t\r\n<"));
}

std::set<std::string> function_names(const nlohmann::ordered_json* tools) {
  std::set<std::string> names;
  if (tools == nullptr || !tools->is_array()) return names;
  for (const auto& tool : *tools) {
    const auto pointer = nlohmann::ordered_json::json_pointer("/function/name");
    if (tool.contains(pointer) && tool.at(pointer).is_string()) {
      names.insert(tool.at(pointer).get<std::string>());
    }
  }
  return names;
}

}  // namespace

HarmonyParser::HarmonyParser(const OutputParserOptions& options)
    : format_(options.format),
      finds_calls_(options.tool_choice == ToolChoice::kAuto &&
                   options.format.tool_calls == ToolCallFormat::kHarmony),
      forced_(options),
      functions_(function_names(options.tools)),
      out_(call_options(options)) {
  const size_t start = options.rendered_prompt.rfind(kStart);
  if (start == std::string_view::npos) return;
  in_.push(options.rendered_prompt.substr(start));
  advance();
  static_cast<void>(out_.take());
  if (state_ == State::kHeader) prompt_header_ = in_.view();
  in_.consume(in_.view().size());
}

bool HarmonyParser::in_reasoning() const {
  return state_ != State::kBody || body_ != Body::kContent;
}

OutputDelta HarmonyParser::push(std::string_view text) {
  in_.push(text);
  advance();
  return out_.take();
}

OutputDelta HarmonyParser::flush() {
  in_.end();
  advance();
  if (state_ == State::kBody && body_ == Body::kCall) out_.end_call();
  state_ = State::kBetween;
  if (forced_.active()) forced_.end(out_);
  return out_.take();
}

void HarmonyParser::advance() {
  bool goes_on = true;
  while (goes_on && !in_.empty()) {
    switch (state_) {
      case State::kBetween:
        goes_on = read_between();
        break;
      case State::kHeader:
        goes_on = read_header();
        break;
      case State::kBody:
        goes_on = read_body();
        break;
    }
  }
}

// Between messages there should be nothing; text that is there all the same is content.
bool HarmonyParser::read_between() {
  in_.skip_leading(kWhiteSpace);
  if (in_.empty()) return false;
  for (const std::string_view marker : {kStart, kChannel, kMessage}) {
    const Read found = starts_with(in_, marker);
    if (found == Read::kMore) return false;
    if (found == Read::kReject) continue;
    if (marker == kStart) in_.consume(marker.size());
    state_ = State::kHeader;
    return true;
  }
  for (size_t i = 0; i < kNumBodyEnds; ++i) {
    const Read found = starts_with(in_, kBodyMarkers[i]);
    if (found == Read::kMore) return false;
    if (found == Read::kReject) continue;
    in_.consume(kBodyMarkers[i].size());
    return true;
  }
  start_body(Body::kContent);
  return true;
}

bool HarmonyParser::read_header() {
  const MarkerSearch found = find_marker(in_, kHeaderMarkers);
  const std::string_view text = in_.view().substr(0, found.position);
  if (found.index == 0 && text.size() <= kHeaderBytesMax) {
    open_body(prompt_header_.append(text));
    in_.consume(text.size() + kMessage.size());
    prompt_header_.clear();
    return true;
  }
  if (!found.index && text.size() <= kHeaderBytesMax && !in_.ended()) return false;
  prompt_header_.clear();
  start_body(Body::kContent);
  if (text.empty()) return true;
  write(text);
  in_.consume(text.size());
  return true;
}

void HarmonyParser::open_body(std::string_view header) {
  std::string_view recipient = header_field(header, "to=");
  if (recipient.empty()) {
    start_body(header_field(header, kChannel) == "analysis" ? Body::kReasoning : Body::kContent);
    return;
  }
  const bool is_function = recipient.starts_with(kFunctions);
  if (is_function) recipient.remove_prefix(kFunctions.size());
  if (!is_function && !functions_.contains(std::string(recipient))) {
    start_body(Body::kReasoning);  // tools of the model's own, which nobody runs
  } else if (!finds_calls_ || !is_function_name(recipient)) {
    start_body(Body::kContent);
  } else {
    start_body(Body::kCall);
    out_.begin_call(std::string(recipient));
  }
}

void HarmonyParser::start_body(Body body) {
  if (body == Body::kReasoning && format_.reasoning == ReasoningFormat::kNone) {
    body = Body::kContent;
  }
  state_ = State::kBody;
  body_ = body;
  parts_ = body == Body::kReasoning ? has_reasoning_ : has_content_;
}

bool HarmonyParser::read_body() {
  const MarkerSearch found = find_marker(in_, kBodyMarkers);
  write(in_.view().substr(0, found.position));
  in_.consume(found.position);
  if (!found.index) return false;
  if (*found.index < kNumBodyEnds) in_.consume(kBodyMarkers[*found.index].size());
  if (body_ == Body::kCall) out_.end_call();
  state_ = State::kBetween;
  return true;
}

void HarmonyParser::write(std::string_view text) {
  if (text.empty()) return;
  switch (body_) {
    case Body::kReasoning:
      if (parts_) out_.reasoning(kLineBreak);
      out_.reasoning(text);
      has_reasoning_ = true;
      break;
    case Body::kContent:
      if (forced_.active()) {
        forced_.write(text, out_);
        break;
      }
      if (parts_) out_.content(kLineBreak);
      out_.content(text);
      has_content_ = true;
      break;
    case Body::kCall:
      out_.arguments(text);
      break;
  }
  parts_ = false;
}

}  // namespace nanocp::api
