// The parser of all formats but harmony: an answer is thoughts between tags, then content with
// blocks of tool calls.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "api/output/block_reader.h"
#include "api/output/delta_writer.h"
#include "api/output/forced_calls.h"
#include "api/output/text_buffer.h"
#include "api/output/tool_types.h"
#include "api/output_parser.h"

namespace nanocp::api {

class TagParser : public OutputParser {
 public:
  explicit TagParser(const OutputParserOptions& options);

  OutputDelta push(std::string_view text) override;
  OutputDelta flush() override;
  bool has_tool_calls() const override { return out_.has_calls(); }
  bool in_reasoning() const override { return state_ == State::kReasoning; }

 private:
  enum class State {
    kStart,      // thoughts may come
    kReasoning,  // until </think>
    kContent,    // until a marker
    kBlock,      // of tool calls
    kForced,     // all the rest is calls, as the request demands
  };

  // Consumes what is settled, until more text must come.
  void advance();
  // Each returns whether the state may have more to do.
  bool read_start();
  bool read_reasoning();
  bool read_content();
  bool read_block();
  bool read_forced();
  void leave_reasoning();

  ToolCallFormat format_;                  // kNone: calls are not looked for
  std::vector<std::string_view> markers_;  // openers, then sections
  size_t num_openers_ = 0;
  ToolTypes types_;
  ForcedCalls forced_;
  TextBuffer in_;
  DeltaWriter out_;
  State state_;
  bool think_may_come_ =
      false;                  // in thoughts that the prompt has not opened: <think> is no thought
  std::string_view skipped_;  // characters to drop before what comes next
  std::string opener_;        // that opened the block, with the white space before it
  std::unique_ptr<BlockReader> block_;
};

}  // namespace nanocp::api
