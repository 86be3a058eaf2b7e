#include "engine/engine.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "engine/check_request.h"

namespace nanocp::engine {

using request::FinishReason;

Engine::Engine(EngineOptions options, std::unique_ptr<scheduler::Policy> policy,
               ModelRunner& runner, const Clock& clock, Random random)
    : options_(std::move(options)),
      runner_(runner),
      clock_(clock),
      random_(random),
      scheduler_(options_.scheduler, std::move(policy)) {}

Result<SequenceId> Engine::add_request(request::Request request) {
  if (failure_) return Error{ErrorCode::kAborted, "the engine has failed: " + failure_->message};
  NANOCP_RETURN_IF_ERROR(check_request(
      request, {.max_model_len = options_.max_model_len, .vocab_size = options_.vocab_size}));
  std::unique_ptr<Record> record = make_record(std::move(request));
  NANOCP_RETURN_IF_ERROR(scheduler_.add(&record->sequence));
  const SequenceId id = next_id_++;
  records_.emplace(id, std::move(record));
  return id;
}

std::unique_ptr<Engine::Record> Engine::make_record(request::Request request) {
  auto record = std::make_unique<Record>();
  record->stop_tokens = request.stop_token_ids;
  if (!request.ignore_eos) {
    record->stop_tokens.insert(record->stop_tokens.end(), options_.eos_token_ids.begin(),
                               options_.eos_token_ids.end());
  }
  std::sort(record->stop_tokens.begin(), record->stop_tokens.end());
  if (request.draw_seed) request.sampling.seed = random_.next();
  record->forbidden_tokens = request.sampling.forbidden_tokens;
  if (request.min_tokens > 0) {
    auto& forbidden = request.sampling.forbidden_tokens;
    forbidden.insert(forbidden.end(), record->stop_tokens.begin(), record->stop_tokens.end());
  }
  record->sequence.id = next_id_;
  record->sequence.arrival_us = clock_.now_us();
  record->sequence.request = std::move(request);
  return record;
}

bool Engine::cancel(SequenceId id) {
  const auto found = records_.find(id);
  if (found == records_.end()) return false;
  if (!scheduler_.remove(id, FinishReason::kCancelled)) {
    cancelled_in_flight_.push_back(std::move(found->second));
  }
  records_.erase(found);
  return true;
}

Result<std::vector<TokenEvent>> Engine::step() {
  if (failure_) return *failure_;
  std::vector<TokenEvent> events;
  const scheduler::StepPlan& plan = scheduler_.plan_step();
  if (plan.empty()) return events;
  auto result = runner_.wait(runner_.launch(plan));
  if (!result.ok()) return fail(result.error());
  const Status checked = check_result(*result, plan);
  if (!checked.ok()) return fail(checked.error());

  ++num_steps_;
  last_spans_ = std::move(result->spans);
  scheduler_.commit_step();
  cancelled_in_flight_.clear();
  events.reserve(result->tokens.size());
  for (SampledToken& sampled : result->tokens) {
    const auto found = records_.find(sampled.sequence);
    if (found == records_.end()) continue;
    events.push_back(commit_token(*found->second, sampled));
    if (events.back().finish_reason != FinishReason::kNone) records_.erase(found);
  }
  return events;
}

// One token per sample task, in the plan's order.
Status Engine::check_result(const StepResult& result, const scheduler::StepPlan& plan) const {
  size_t next = 0;
  for (const auto& tasks : plan.sample_tasks) {
    for (const scheduler::SampleTask& task : tasks) {
      const bool agrees =
          next < result.tokens.size() && result.tokens[next].sequence == task.sequence->id;
      if (!agrees) {
        return Error{ErrorCode::kInternal,
                     "the runner's result of step " + std::to_string(plan.step_id) +
                         " has no token for sequence " + std::to_string(task.sequence->id) +
                         " at place " + std::to_string(next)};
      }
      ++next;
    }
  }
  if (next == result.tokens.size()) return ok_status();
  return Error{ErrorCode::kInternal, "the runner returned " + std::to_string(result.tokens.size()) +
                                         " tokens for " + std::to_string(next) +
                                         " sample tasks in step " + std::to_string(plan.step_id)};
}

TokenEvent Engine::commit_token(Record& record, SampledToken& sampled) {
  request::Sequence& sequence = record.sequence;
  sequence.output.push_back(sampled.token);
  const bool min_is_reached =
      static_cast<int64_t>(sequence.output.size()) == sequence.request.min_tokens;
  if (min_is_reached) sequence.request.sampling.forbidden_tokens = record.forbidden_tokens;

  TokenEvent event{.sequence = sequence.id,
                   .token = sampled.token,
                   .logprob = sampled.logprob,
                   .top_logprobs = std::move(sampled.top_logprobs),
                   .logits = std::move(sampled.logits),
                   .finish_reason = finish_reason(record, sampled.token),
                   .summary = std::nullopt};
  if (event.finish_reason == FinishReason::kNone) return event;
  event.is_text = event.finish_reason != FinishReason::kStop;
  event.summary = summarize(record);
  NANOCP_CHECK(scheduler_.remove(sequence.id, event.finish_reason));
  return event;
}

FinishReason Engine::finish_reason(const Record& record, TokenId token) const {
  const request::Sequence& sequence = record.sequence;
  const auto num_outputs = static_cast<int64_t>(sequence.output.size());
  const bool stops =
      std::binary_search(record.stop_tokens.begin(), record.stop_tokens.end(), token);
  if (stops && num_outputs > sequence.request.min_tokens) return FinishReason::kStop;
  return num_outputs >= sequence.request.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

SequenceSummary Engine::summarize(const Record& record) const {
  SequenceSummary summary{.binding = record.sequence.binding,
                          .kv_tokens = {},
                          .num_preemptions = record.sequence.num_preemptions};
  for (const kvcache::Shard& shard : scheduler_.placement(record.sequence.id)->shards()) {
    summary.kv_tokens.emplace_back(shard.holder, shard.num_tokens);
  }
  return summary;
}

// The instances may disagree about the step, so nothing can go on.
Error Engine::fail(Error error) {
  scheduler_.abandon_step();
  for (auto& [id, record] : records_) {
    NANOCP_CHECK(scheduler_.remove(id, FinishReason::kError));
  }
  records_.clear();
  cancelled_in_flight_.clear();
  failure_ = error;
  return error;
}

const request::Sequence* Engine::sequence(SequenceId id) const {
  const auto found = records_.find(id);
  return found == records_.end() ? nullptr : &found->second->sequence;
}

}  // namespace nanocp::engine
