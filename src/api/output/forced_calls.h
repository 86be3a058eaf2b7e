// Answers whose content is constrained to be calls, as tool_choice "required" or a named tool
// demands (see forced_tool_schema). One parser owns one.
#pragma once

#include <string>
#include <string_view>

#include "api/output/block_reader.h"
#include "api/output/delta_writer.h"
#include "api/output/text_buffer.h"
#include "api/output_parser.h"

namespace nanocp::api {

class ForcedCalls {
 public:
  explicit ForcedCalls(const OutputParserOptions& options)
      : choice_(options.tool_choice), named_tool_(options.named_tool) {}

  // Whether calls are forced.
  bool active() const { return choice_ == ToolChoice::kNamed || choice_ == ToolChoice::kRequired; }
  // The next piece of content. Requires: active().
  void write(std::string_view text, DeltaWriter& out);
  // The end of the answer; what was held back comes out.
  void end(DeltaWriter& out);

 private:
  void read_list(DeltaWriter& out);

  ToolChoice choice_;
  std::string named_tool_;
  bool named_begun_ = false;
  TextBuffer in_;  // of the list
  JsonCallList list_;
  bool list_over_ = false;
};

}  // namespace nanocp::api
