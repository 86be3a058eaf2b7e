#include "engine/engine.h"

#include <algorithm>
#include <string>

#include "base/check.h"
#include "base/prefetch.h"
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
  NANOCP_RETURN_IF_ERROR(start_constraint(*record));
  NANOCP_RETURN_IF_ERROR(scheduler_.add(record.get()));
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
  record->has_stop_tokens = !record->stop_tokens.empty();
  if (request.draw_seed) request.sampling.seed = random_.next();
  record->forbidden_tokens = request.sampling.forbidden_tokens;
  if (request.min_tokens > 0) {
    auto& forbidden = request.sampling.forbidden_tokens;
    forbidden.insert(forbidden.end(), record->stop_tokens.begin(), record->stop_tokens.end());
  }
  record->id = next_id_;
  record->arrival_us = clock_.now_us();
  record->request = std::move(request);
  return record;
}

Status Engine::start_constraint(Record& record) {
  if (record.request.constraint == nullptr) return ok_status();
  record.constraint = record.request.constraint->start();
  record.is_constrained = true;
  return set_allowed_tokens(record);
}

// No step in flight samples the sequence: see needs_tokens_read().
Status Engine::set_allowed_tokens(Record& record) {
  auto& allowed = record.request.sampling.allowed_tokens;
  allowed = record.constraint->allowed();
  const bool is_stuck = allowed != nullptr && std::all_of(allowed->begin(), allowed->end(),
                                                          [](uint32_t word) { return word == 0; });
  if (is_stuck) return invalid_argument(record.constraint->problem());
  return ok_status();
}

Status Engine::follow_constraint(Record& record, TokenId token) {
  if (!record.constraint->accept(token)) return invalid_argument(record.constraint->problem());
  return set_allowed_tokens(record);
}

Engine::~Engine() {
  drain();
}

bool Engine::cancel(SequenceId id) {
  const auto found = records_.find(id);
  if (found == records_.end()) return false;
  leave(*found->second, FinishReason::kCancelled);
  bury(std::move(found->second));
  records_.erase(found);
  return true;
}

// The scheduler gives up the sequence, unless it has done so.
void Engine::leave(Record& record, FinishReason reason) {
  if (record.summary) {
    record.finish_reason = reason;
    return;
  }
  record.summary = summarize(record);
  scheduler_.remove(record.id, reason);
}

// Plans name the sequence until all of them are over.
void Engine::bury(std::unique_ptr<Record> record) {
  record->is_open = false;
  if (!steps_.empty()) steps_.back().ended.push_back(std::move(record));
}

Result<std::vector<TokenEvent>> Engine::step() {
  if (failure_) return *failure_;
  if (steps_.empty()) plan_next();
  if (steps_.empty()) return std::vector<TokenEvent>();
  if (options_.async_scheduling && runner_.runs_ahead()) plan_next();
  auto result = wait_first();
  if (!result.ok()) return fail(result.error());

  ++num_steps_;
  last_work_ = steps_.front().plan->work;
  last_duration_us_ = result->duration_us;
  last_spans_ = std::move(result->spans);
  last_idle_us_ = std::move(result->idle_us);
  keep_scores(result->scored);
  std::vector<TokenEvent> events = commit_tokens(*steps_.front().plan, result->tokens);
  const Step finished = std::move(steps_.front());
  steps_.pop_front();
  launch_waiting(*finished.plan, result->tokens);
  return events;
}

// Plans a step and launches it, behind the one in flight if there is one. What the plan does counts
// as done from here on, and so does each token that it samples, but for its id.
void Engine::plan_next() {
  scheduler::StepPlan& plan = scheduler_.plan_step(
      runner_.reads_tables() ? scheduler::PlanTables::kBuilt : scheduler::PlanTables::kNone);
  if (plan.empty()) return;
  scheduler_.commit_step();
  announce_tokens(plan);
  const bool can_launch =
      steps_.empty() || (!needs_tokens_read(plan) && runner_.can_launch_ahead(plan));
  steps_.push_back({.plan = &plan, .ticket = std::nullopt, .ended = {}});
  if (can_launch) steps_.back().ticket = runner_.launch(plan);
}

namespace {

// Records lie apart: those a few places ahead are fetched while this one is worked on.
void prefetch_sample(const scheduler::StepPlan& plan, size_t i) {
  constexpr size_t kAhead = 16;
  if (i + kAhead < plan.samples.size()) prefetch(plan.samples[i + kAhead].sequence);
}

// Likewise where the next token goes.
void prefetch_output(const scheduler::StepPlan& plan, size_t i) {
  constexpr size_t kAhead = 8;
  if (i + kAhead >= plan.samples.size()) return;
  const std::vector<TokenId>& output = plan.samples[i + kAhead].sequence->output;
  prefetch(output.data() + output.size());
}

}  // namespace

// A sequence whose last token is on its way needs no further step, whatever that token is.
void Engine::announce_tokens(const scheduler::StepPlan& plan) {
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    prefetch_sample(plan, i);
    request::Sequence& sequence = *plan.samples[i].sequence;
    ++sequence.num_unread;
    const bool is_last = sequence.num_outputs() >= sequence.request.max_tokens;
    if (is_last) leave(record_of(sequence), FinishReason::kLength);
  }
}

// Which tokens may follow one that nobody has read yet is not known.
bool Engine::needs_tokens_read(const scheduler::StepPlan& plan) {
  return std::any_of(
      plan.samples.begin(), plan.samples.end(), [](const scheduler::SamplingSequence& sample) {
        return record_of(*sample.sequence).is_constrained && sample.sequence->num_unread > 1;
      });
}

Result<StepResult> Engine::wait_first() {
  const StepTicket ticket = *steps_.front().ticket;
  steps_.front().ticket.reset();
  NANOCP_ASSIGN_OR_RETURN(StepResult result, runner_.wait(ticket));
  NANOCP_RETURN_IF_ERROR(check_result(result, *steps_.front().plan));
  return result;
}

std::vector<TokenEvent> Engine::commit_tokens(const scheduler::StepPlan& plan,
                                              std::vector<SampledToken>& tokens) {
  std::vector<TokenEvent> events;
  events.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    prefetch_sample(plan, i);
    prefetch_output(plan, i);
    Record& record = record_of(*plan.samples[i].sequence);
    if (!record.is_open) continue;
    commit_token(record, tokens[i], events.emplace_back());
    if (events.back().finish_reason == FinishReason::kNone) continue;
    const auto found = records_.find(record.id);
    bury(std::move(found->second));
    records_.erase(found);
  }
  return events;
}

// Until the first token is read; a preempted prompt is scored again, with the same result.
void Engine::keep_scores(std::vector<ScoredToken>& scored) {
  for (ScoredToken& token : scored) {
    const auto found = records_.find(token.sequence);
    if (found == records_.end()) continue;
    Record& record = *found->second;
    record.is_scored = true;
    record.prompt_scores.resize(static_cast<size_t>(record.num_prompt_tokens() - 1));
    record.prompt_scores[static_cast<size_t>(token.position - 1)] = std::move(token.score);
  }
}

// The next step may have waited for the tokens of the one that is over.
void Engine::launch_waiting(const scheduler::StepPlan& finished,
                            const std::vector<SampledToken>& tokens) {
  if (steps_.empty() || steps_.front().ticket) return;
  std::vector<size_t> first;  // [num_instances] in `tokens`
  size_t num_tokens = 0;
  for (const auto& tasks : finished.sample_tasks) {
    first.push_back(num_tokens);
    num_tokens += tasks.size();
  }
  scheduler::StepPlan& plan = *steps_.front().plan;
  for (InstancePlan& instance : plan.instances) {
    for (const UnreadToken& unread : instance.unread_tokens) {
      const size_t at =
          first[static_cast<size_t>(unread.source)] + static_cast<size_t>(unread.sample);
      instance.token_ids[static_cast<size_t>(unread.row)] = tokens[at].token;
    }
    instance.unread_tokens.clear();
  }
  steps_.front().ticket = runner_.launch(plan);
}

// One token per sample task, in the plan's order.
Status Engine::check_result(const StepResult& result, const scheduler::StepPlan& plan) const {
  const size_t num_both = std::min(plan.samples.size(), result.tokens.size());
  for (size_t i = 0; i < num_both; ++i) {
    if (result.tokens[i].sequence == plan.samples[i].id) continue;
    return Error{ErrorCode::kInternal,
                 "the runner's result of step " + std::to_string(plan.step_id) +
                     " has no token for sequence " + std::to_string(plan.samples[i].id) +
                     " at place " + std::to_string(i)};
  }
  if (plan.samples.size() == result.tokens.size()) return ok_status();
  return Error{ErrorCode::kInternal, "the runner returned " + std::to_string(result.tokens.size()) +
                                         " tokens for " + std::to_string(plan.samples.size()) +
                                         " sample tasks in step " + std::to_string(plan.step_id)};
}

void Engine::commit_token(Record& record, SampledToken& sampled, TokenEvent& event) {
  request::Sequence& sequence = record;
  sequence.output.push_back(sampled.token);
  --sequence.num_unread;
  const bool min_is_reached =
      static_cast<int64_t>(sequence.output.size()) == sequence.request.min_tokens;
  if (min_is_reached) sequence.request.sampling.forbidden_tokens = record.forbidden_tokens;

  event.sequence = sequence.id;
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.details = std::move(sampled.details);
  if (record.is_scored) {
    event.details.make().prompt_scores = std::move(record.prompt_scores);
    record.is_scored = false;
  }
  event.finish_reason = finish_reason(record, sampled.token);
  Status followed = ok_status();
  if (record.is_constrained && event.finish_reason == FinishReason::kNone) {
    followed = follow_constraint(record, sampled.token);
    if (!followed.ok()) event.finish_reason = FinishReason::kError;
  }
  if (event.finish_reason == FinishReason::kNone) return;
  event.is_text = event.finish_reason != FinishReason::kStop;
  leave(record, event.finish_reason);
  event.summary = std::move(record.summary);
  if (!followed.ok()) event.summary->error = followed.error().message;
}

FinishReason Engine::finish_reason(const Record& record, TokenId token) const {
  const request::Sequence& sequence = record;
  const auto num_outputs = static_cast<int64_t>(sequence.output.size());
  const bool stops = record.has_stop_tokens && std::binary_search(record.stop_tokens.begin(),
                                                                  record.stop_tokens.end(), token);
  if (stops && num_outputs > sequence.request.min_tokens) return FinishReason::kStop;
  return num_outputs >= sequence.request.max_tokens ? FinishReason::kLength : FinishReason::kNone;
}

std::unique_ptr<SequenceSummary> Engine::summarize(const Record& record) const {
  auto summary = std::make_unique<SequenceSummary>();
  summary->binding = record.binding;
  summary->num_preemptions = record.num_preemptions;
  for (const kvcache::Shard& shard : scheduler_.placement(record.id)->shards()) {
    summary->kv_tokens.emplace_back(shard.holder, shard.num_tokens);
  }
  return summary;
}

// The instances may disagree about the step, so nothing can go on.
Error Engine::fail(Error error) {
  drain();
  for (auto& [id, record] : records_) leave(*record, FinishReason::kError);
  records_.clear();
  failure_ = error;
  return error;
}

// Until the runner reads no plan any more; tokens are dropped.
void Engine::drain() {
  for (const Step& step : steps_) {
    if (step.ticket) static_cast<void>(runner_.wait(*step.ticket));
  }
  steps_.clear();
}

const request::Sequence* Engine::sequence(SequenceId id) const {
  const auto found = records_.find(id);
  if (found == records_.end()) return nullptr;
  scheduler_.placement(id);  // brings its counters up to date
  return found->second.get();
}

}  // namespace nanocp::engine
