// Turns the tokens of one HTTP request's sequences into what the client reads: server-sent events
// while they come, or one JSON body at the end. Owned by that request; one thread at a time; the
// context outlives it. Everything it writes is valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/generation_request.h"
#include "engine/engine.h"

namespace nanocp::api {

struct ResponseIdentity {
  std::string id;         // "chatcmpl-..." or "cmpl-..."
  int64_t created_s = 0;  // seconds since 1970
};

struct Usage {
  int64_t num_prompt_tokens = 0;  // each prompt once
  int64_t num_output_tokens = 0;  // of all choices
};

// What a token meant for its choice.
struct Progress {
  // The choice is complete.
  bool finished = false;
  // Its sequence is still open and must be cancelled: a stop string was found.
  bool cancel = false;
};

class ResponseWriter {
 public:
  ResponseWriter(OutputOptions output, const ModelContext& context, ResponseIdentity identity);
  ~ResponseWriter();
  ResponseWriter(ResponseWriter&&) noexcept;
  ResponseWriter& operator=(ResponseWriter&&) noexcept;

  bool streams() const;

  // What a stream starts with, appended to `out`; nothing for a single body.
  void begin(std::string& out);

  // The next token of choice `index`. Appends the events that it completes to `out`; nothing for a
  // single body. Tokens of a choice that is complete are ignored.
  Progress push(size_t index, engine::TokenEvent& event, std::string& out);

  // All choices are complete.
  bool done() const;
  // The end of a stream (usage and [DONE]), or the whole body. Requires: done().
  void finish(std::string& out);

  // The request has failed, now or in the middle: an error event and [DONE] for a stream, the error
  // object for a single body (whose status is the error's).
  void fail(const ApiError& error, std::string& out);

  Usage usage() const;
  // Of a complete choice, for metrics.
  request::FinishReason finish_reason(size_t index) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanocp::api
