// The one brain of an EP group: owns the open sequences and the scheduler, and drives a runner step
// by step. One thread; owns no thread itself. Runner, clock and randomness are arguments, so that a
// simulator runs this very code. See CONTRACT.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "engine/model_runner.h"
#include "request/request.h"
#include "scheduler/scheduler.h"

namespace nanocp::engine {

struct EngineOptions {
  scheduler::SchedulerOptions scheduler;
  std::vector<TokenId> eos_token_ids;  // the model's end tokens
  int64_t max_model_len = 0;           // prompt and output; 0: only the KV cache limits
  int64_t vocab_size = 0;              // prompt tokens must be below; 0: not checked
};

// Where a sequence ran, for reports.
struct SequenceSummary {
  InstanceId binding = kNoInstance;                       // of its last rows
  std::vector<std::pair<InstanceId, int64_t>> kv_tokens;  // per holder
  int32_t num_preemptions = 0;
};

struct TokenEvent {
  SequenceId sequence = 0;
  TokenId token = 0;
  bool is_text = true;  // false for the end or stop token that finished the sequence
  float logprob = 0.0F;
  std::vector<std::pair<TokenId, float>> top_logprobs;
  std::vector<float> logits;  // [vocab], when the runner keeps them
  request::FinishReason finish_reason = request::FinishReason::kNone;
  std::optional<SequenceSummary> summary;  // with the last token
};

class Engine {
 public:
  // Requires: check_options(options.scheduler).ok(); runner and clock outlive the engine.
  Engine(EngineOptions options, std::unique_ptr<scheduler::Policy> policy, ModelRunner& runner,
         const Clock& clock, Random random);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Queues a request, or says why it cannot run.
  Result<SequenceId> add_request(request::Request request);
  // Ends a sequence without further events; false when it is not open. Blocks are free at once, or
  // after the step in flight when that may still write to them.
  bool cancel(SequenceId id);
  bool has_work() const { return !records_.empty(); }
  // Plans one step, has it carried out and returns the new tokens. After an error of the runner all
  // open sequences have ended with kError, and every further call returns that error.
  Result<std::vector<TokenEvent>> step();

  // Null when the sequence is not open. Valid until the next call that is not const.
  const request::Sequence* sequence(SequenceId id) const;
  const kvcache::KvPlacement* placement(SequenceId id) const { return scheduler_.placement(id); }
  // [num_instances]
  std::span<const scheduler::InstanceLoad> loads() const { return scheduler_.loads(); }
  const scheduler::Scheduler& scheduler() const { return scheduler_; }
  uint64_t num_steps() const { return num_steps_; }
  // Of the last step, [num_instances]; empty unless the runner profiles.
  std::span<const std::vector<PhaseSpan>> last_spans() const { return last_spans_; }

 private:
  struct Record {
    request::Sequence sequence;
    std::vector<TokenId> stop_tokens;       // sorted; those that end this sequence
    std::vector<TokenId> forbidden_tokens;  // the request's own, back in force after min_tokens
  };

  std::unique_ptr<Record> make_record(request::Request request);
  Status check_result(const StepResult& result, const scheduler::StepPlan& plan) const;
  TokenEvent commit_token(Record& record, SampledToken& sampled);
  request::FinishReason finish_reason(const Record& record, TokenId token) const;
  SequenceSummary summarize(const Record& record) const;
  Error fail(Error error);

  const EngineOptions options_;
  ModelRunner& runner_;
  const Clock& clock_;
  Random random_;
  scheduler::Scheduler scheduler_;
  std::unordered_map<SequenceId, std::unique_ptr<Record>> records_;
  std::vector<std::unique_ptr<Record>> cancelled_in_flight_;
  std::optional<Error> failure_;  // of the runner; final
  SequenceId next_id_ = 1;
  uint64_t num_steps_ = 0;
  std::vector<std::vector<PhaseSpan>> last_spans_;
};

}  // namespace nanocp::engine
