// Runs a set of prompts through an engine and collects the answers. One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "apps/generation_params.h"
#include "base/result.h"
#include "engine/check_request.h"
#include "engine/engine.h"
#include "text/answer_text.h"
#include "text/tokenizer.h"

namespace nanocp::apps {

struct GenerationTask {
  std::string source;  // for messages
  std::vector<TokenId> prompt;
  GenerationParams params;
};

struct TokenLogprobs {
  TokenId token;
  float logprob;
  std::vector<std::pair<TokenId, float>> top;
};

struct Answer {
  std::string text;                     // without a stop string; empty without a tokenizer
  std::vector<TokenId> token_ids;       // a stop token at the end included
  std::vector<TokenLogprobs> logprobs;  // by token, if asked for
  request::FinishReason finish_reason = request::FinishReason::kNone;
  engine::SequenceSummary placement;  // when it ended
};

// Says what is wrong with a task, as far as that is known without an engine.
Status check_task(const GenerationTask& task, const engine::RequestLimits& limits);

class Generation {
 public:
  // New text of the answer to task `index`, in order.
  using OnText = std::function<void(size_t index, const std::string& text)>;

  // `tokenizer` may be null; answers then have no text. Requires: all outlive this.
  Generation(engine::Engine& engine, const text::Tokenizer* tokenizer, bool keep_special_tokens);

  // Queues the next task, or says why it cannot run.
  Status add(const GenerationTask& task);

  // Runs until all answers are complete or `interrupted` says to stop; open ones are cancelled.
  Status run(const OnText& on_text, const std::function<bool()>& interrupted);

  // By task.
  const std::vector<Answer>& answers() const { return answers_; }

 private:
  struct Open {
    size_t index;
    bool wants_logprobs;
    std::unique_ptr<text::AnswerText> answer_text;
  };

  void handle(engine::TokenEvent& event, const OnText& on_text);
  void emit(size_t index, const std::string& text, const OnText& on_text);
  void cancel(SequenceId id, const Open& open, request::FinishReason reason);
  void cancel_all();

  engine::Engine& engine_;
  const text::Tokenizer* tokenizer_;
  bool skip_special_;
  std::vector<Answer> answers_;
  std::unordered_map<SequenceId, Open> open_;
};

}  // namespace nanocp::apps
