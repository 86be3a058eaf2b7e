// Gathers the parts of an answer into deltas: numbers calls, draws their ids and keeps JSON escapes
// of arguments whole. One parser owns one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/output_parser.h"

namespace nanocp::api {

struct CallOptions {
  uint64_t id_seed = 0;
  bool short_ids = false;  // nine characters, as Mistral's templates demand; else call_ and 24
  bool parallel = true;    // false: calls after the first are dropped
};

CallOptions call_options(const OutputParserOptions& options);

class DeltaWriter {
 public:
  explicit DeltaWriter(const CallOptions& options) : options_(options) {}

  void content(std::string_view text) { delta_.content.append(text); }
  void reasoning(std::string_view text) { delta_.reasoning_content.append(text); }

  // An empty id is drawn.
  void begin_call(std::string name, std::string id = {});
  void arguments(std::string_view text);
  // `complete`: arguments that are empty become {}.
  void end_call(bool complete = true);

  bool has_calls() const { return num_calls_ > 0; }
  // What has been gathered since the last call.
  OutputDelta take();

 private:
  std::string draw_id() const;
  ToolCallDelta& current();
  // Bytes of `held_` up to which no escape is open.
  size_t whole_escapes();

  CallOptions options_;
  OutputDelta delta_;
  int32_t num_calls_ = 0;
  bool dropped_ = false;    // the current call is not shown
  bool has_text_ = false;   // the current call has arguments
  std::string held_;        // of the arguments, at most an open escape between calls
  size_t num_scanned_ = 0;  // of held_
  // Where the scan of escapes stands: how far into \uXXXX, and whether that is the second half.
  size_t escape_size_ = 0;
  bool low_half_ = false;
  size_t num_whole_ = 0;
};

}  // namespace nanocp::api
