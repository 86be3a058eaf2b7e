#include "api/output/forced_calls.h"

namespace nanocp::api {

void ForcedCalls::write(std::string_view text, DeltaWriter& out) {
  if (choice_ == ToolChoice::kRequired) {
    in_.push(text);
    read_list(out);
    return;
  }
  if (text.empty()) return;
  if (!named_begun_) out.begin_call(named_tool_);
  named_begun_ = true;
  out.arguments(text);
}

void ForcedCalls::end(DeltaWriter& out) {
  if (choice_ == ToolChoice::kRequired) {
    in_.end();
    read_list(out);
  } else if (named_begun_) {
    out.end_call(false);
  }
}

// What is not a list of calls, although the answer was constrained to be one, is content.
void ForcedCalls::read_list(DeltaWriter& out) {
  if (!list_over_) list_over_ = list_.read(in_, out) != Read::kMore;
  if (!list_over_) return;
  out.content(in_.view());
  in_.consume(in_.view().size());
}

}  // namespace nanocp::api
