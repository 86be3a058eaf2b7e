// Reads what a server streams for one request of OpenAI's API: when tokens come, how many, and what
// went wrong. One thread at a time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "http_client/event_stream.h"

namespace nanocp::load {

// Text that is short enough for a table: control characters and what is beyond 300 bytes left out.
std::string shortened(std::string_view text);
// "error.message" of an error's body, or the body itself, shortened.
std::string error_text(std::string_view body);

class AnswerReader {
 public:
  void take_head(int status, std::string_view content_type);
  // False: the rest is of no use. Sets `num_new_tokens`: tokens that these bytes brought.
  bool take_body(std::string_view bytes, int64_t& num_new_tokens);
  // The answer is complete: checks that it is whole.
  void finish();

  // Empty: none. "http_503", "stream_error", "malformed_answer", "stream_cut", "not_a_stream",
  // "no_tokens".
  const std::string& error() const { return error_; }
  const std::string& detail() const { return detail_; }
  bool has_usage() const { return has_usage_; }
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_output_tokens() const { return has_usage_ ? num_reported_ : num_seen_; }

 private:
  void take_event(std::string_view data);
  bool fail(std::string kind, std::string detail);

  int status_ = 0;
  bool is_stream_ = false;
  http_client::EventStream events_;
  std::string body_;  // of an answer that is no stream
  std::string error_;
  std::string detail_;
  bool is_done_ = false;      // [DONE] has come
  bool is_finished_ = false;  // a finish_reason has come
  bool has_usage_ = false;
  int64_t num_prompt_tokens_ = 0;
  int64_t num_reported_ = 0;  // by usage, so far
  int64_t num_seen_ = 0;      // by events with text, or by usage where each event has it
};

}  // namespace nanocp::load
