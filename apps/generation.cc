#include "apps/generation.h"

namespace nanocp::apps {

using request::FinishReason;

namespace {

request::Request make_request(const GenerationTask& task) {
  request::Request request;
  request.prompt = task.prompt;
  request.sampling = task.params.sampling;
  request.max_tokens = task.params.max_tokens;
  request.min_tokens = task.params.min_tokens;
  request.stop_token_ids = task.params.stop_token_ids;
  request.ignore_eos = task.params.ignore_eos;
  request.constraint = task.params.constraint;
  return request;
}

Error with_source(const GenerationTask& task, const Error& error) {
  return {error.code, task.source + ": " + error.message};
}

}  // namespace

Status check_task(const GenerationTask& task, const engine::RequestLimits& limits) {
  const Status status = engine::check_request(make_request(task), limits);
  return status.ok() ? status : with_source(task, status.error());
}

Generation::Generation(engine::Engine& engine, const text::Tokenizer* tokenizer,
                       bool keep_special_tokens)
    : engine_(engine), tokenizer_(tokenizer), skip_special_(!keep_special_tokens) {}

Status Generation::add(const GenerationTask& task) {
  auto id = engine_.add_request(make_request(task));
  if (!id.ok()) return with_source(task, id.error());
  std::unique_ptr<text::AnswerText> answer_text;
  if (tokenizer_ != nullptr) {
    answer_text = std::make_unique<text::AnswerText>(
        *tokenizer_, text::AnswerTextOptions{.skip_special = skip_special_,
                                             .stop = task.params.stop,
                                             .min_tokens = task.params.min_tokens});
  }
  open_.emplace(id.value(), Open{.index = answers_.size(),
                                 .wants_logprobs = task.params.sampling.num_logprobs >= 0,
                                 .answer_text = std::move(answer_text)});
  answers_.emplace_back();
  return ok_status();
}

Status Generation::run(const OnText& on_text, const std::function<bool()>& interrupted) {
  while (engine_.has_work()) {
    if (interrupted()) {
      cancel_all();
      break;
    }
    const uint64_t num_steps = engine_.num_steps();
    NANOCP_ASSIGN_OR_RETURN(std::vector<engine::TokenEvent> events, engine_.step());
    for (engine::TokenEvent& event : events) handle(event, on_text);
    if (engine_.has_work() && engine_.num_steps() == num_steps) {
      return Error{ErrorCode::kInternal, "the engine has requests but plans no step"};
    }
  }
  return ok_status();
}

void Generation::handle(engine::TokenEvent& event, const OnText& on_text) {
  const auto found = open_.find(event.sequence);
  if (found == open_.end()) return;
  Open& open = found->second;
  Answer& answer = answers_[open.index];
  answer.token_ids.push_back(event.token);
  if (open.wants_logprobs) {
    answer.logprobs.push_back({event.token, event.logprob, event.details.take().top_logprobs});
  }
  const bool finished = event.finish_reason != FinishReason::kNone;
  if (finished) {
    answer.finish_reason = event.finish_reason;
    if (event.summary) answer.placement = std::move(*event.summary);
  }
  if (open.answer_text != nullptr) {
    emit(open.index, open.answer_text->push(event.token, event.is_text), on_text);
    if (finished) emit(open.index, open.answer_text->flush(), on_text);
    if (open.answer_text->stopped()) {
      answer.finish_reason = FinishReason::kStop;
      if (!finished) cancel(event.sequence, open, FinishReason::kStop);
    }
  }
  if (answer.finish_reason != FinishReason::kNone) open_.erase(found);
}

void Generation::emit(size_t index, const std::string& text, const OnText& on_text) {
  if (text.empty()) return;
  answers_[index].text += text;
  on_text(index, text);
}

void Generation::cancel(SequenceId id, const Open& open, FinishReason reason) {
  Answer& answer = answers_[open.index];
  answer.finish_reason = reason;
  if (const request::Sequence* sequence = engine_.sequence(id)) {
    answer.placement.binding = sequence->binding;
    answer.placement.num_preemptions = sequence->num_preemptions;
  }
  if (const kvcache::KvPlacement* placement = engine_.placement(id)) {
    for (const kvcache::Shard& shard : placement->shards()) {
      answer.placement.kv_tokens.emplace_back(shard.holder, shard.num_tokens);
    }
  }
  engine_.cancel(id);
}

void Generation::cancel_all() {
  for (const auto& [id, open] : open_) cancel(id, open, FinishReason::kCancelled);
  open_.clear();
}

}  // namespace nanocp::apps
