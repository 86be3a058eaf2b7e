// Turns the tokens of one HTTP request's sequences into what the client reads: server-sent events
// while they come, or one JSON body at the end. Owned by that request; one thread at a time; the
// context outlives it. Everything it writes is valid UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/answer_json.h"
#include "api/generation_request.h"
#include "engine/engine.h"

namespace nanocp::api {

struct ResponseIdentity {
  std::string id;         // "chatcmpl-..." or "cmpl-..."
  int64_t created_s = 0;  // seconds since 1970
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
  ResponseWriter(OutputOptions output, const ModelContext& context,
                 const ResponseIdentity& identity);
  ~ResponseWriter();
  ResponseWriter(ResponseWriter&&) noexcept;
  ResponseWriter& operator=(ResponseWriter&&) noexcept;

  bool streams() const { return output_.stream; }

  // What a stream starts with, appended to `out`; nothing for a single body.
  void begin(std::string& out);

  // The next token of choice `index`. Appends the events that it completes to `out`; nothing for a
  // single body. Tokens of a choice that is complete are ignored.
  Progress push(size_t index, engine::TokenEvent& event, std::string& out);

  // All choices are complete.
  bool done() const { return num_open_ == 0; }
  // The end of a stream (usage and [DONE]), or the whole body. Requires: done().
  void finish(std::string& out);

  // The request has failed, now or in the middle: an error event and [DONE] for a stream, the error
  // object for a single body (whose status is the error's).
  void fail(const ApiError& error, std::string& out) const;

  Usage usage() const;
  // Of a complete choice, for metrics.
  request::FinishReason finish_reason(size_t index) const;

 private:
  bool is_chat() const { return output_.endpoint == Endpoint::kChat; }
  const PromptInfo& prompt_of(size_t index) const {
    return output_.prompts[index / static_cast<size_t>(output_.n)];
  }
  std::string take_token(Choice& choice, const PromptInfo& prompt, engine::TokenEvent& event) const;
  void add_echo(Choice& choice, const PromptInfo& prompt,
                const engine::TokenDetails& details) const;
  void end(Choice& choice, const engine::TokenEvent& event);
  void emit(size_t index, const OutputDelta& delta, bool is_last, std::string& out);
  void append_chunk(size_t index, const OutputDelta& delta, bool is_last, std::string& out);
  void append_logprobs(Choice& choice, std::string& out) const;
  void append_chunk_usage(size_t index, std::string& out) const;
  void append_choice(size_t index, std::string& out);

  OutputOptions output_;
  const ModelContext* context_;
  std::string head_;  // of an object, up to the opening of its choices
  std::vector<std::unique_ptr<Choice>> choices_;
  size_t num_open_;
};

}  // namespace nanocp::api
