// The parser of gpt-oss's format, harmony: an answer is a list of messages, each with a header that
// names its channel and, if it is a call, the recipient:
//   <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
//   <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include "api/output/delta_writer.h"
#include "api/output/forced_calls.h"
#include "api/output/text_buffer.h"
#include "api/output_parser.h"

namespace nanocp::api {

class HarmonyParser : public OutputParser {
 public:
  explicit HarmonyParser(const OutputParserOptions& options);

  OutputDelta push(std::string_view text) override;
  OutputDelta flush() override;
  bool has_tool_calls() const override { return out_.has_calls(); }
  bool in_reasoning() const override;

 private:
  enum class State { kBetween, kHeader, kBody };
  // What the body of a message is.
  enum class Body { kReasoning, kContent, kCall };

  void advance();
  bool read_between();
  bool read_header();
  bool read_body();
  void open_body(std::string_view header);
  void start_body(Body body);
  void write(std::string_view text);

  OutputFormat format_;
  bool finds_calls_;
  ForcedCalls forced_;               // if active, content is calls
  std::set<std::string> functions_;  // names of the tools
  TextBuffer in_;
  DeltaWriter out_;
  State state_ = State::kBetween;
  Body body_ = Body::kReasoning;
  // A line break parts messages of a kind that follow one another.
  bool has_reasoning_ = false;
  bool has_content_ = false;
  bool parts_ = false;         // the next text of the body comes after such a break
  std::string prompt_header_;  // the start of the first header, which the prompt has
};

}  // namespace nanocp::api
