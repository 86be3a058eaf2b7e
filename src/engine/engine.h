// The one brain of an EP group: owns the open sequences and the scheduler, and drives a runner step
// by step. One thread; owns no thread itself. Runner, clock and randomness are arguments, so that a
// simulator runs this very code. See CONTRACT.md.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
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
  bool async_scheduling = true;        // plan a step ahead, if the runner can
};

// Where a sequence ran, for reports.
struct SequenceSummary {
  InstanceId binding = kNoInstance;                       // of its last rows
  std::vector<std::pair<InstanceId, int64_t>> kv_tokens;  // per holder
  int32_t num_preemptions = 0;
  std::string error = {};  // why the sequence ended, with kError in an event
};

struct TokenEvent {
  SequenceId sequence = 0;
  TokenId token = 0;
  float logprob = 0.0F;
  bool is_text = true;  // false for the end or stop token that finished the sequence
  request::FinishReason finish_reason = request::FinishReason::kNone;
  OptionalDetails details;
  std::unique_ptr<SequenceSummary> summary;  // with the last token
};

class Engine {
 public:
  // Requires: check_options(options.scheduler).ok(); runner and clock outlive the engine.
  Engine(EngineOptions options, std::unique_ptr<scheduler::Policy> policy, ModelRunner& runner,
         const Clock& clock, Random random);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  // Waits for the steps in flight.
  ~Engine();

  // Queues a request, or says why it cannot run.
  Result<SequenceId> add_request(request::Request request);
  // Ends a sequence without further events; false when it is not open. Its blocks are free for
  // steps that are planned from now on.
  bool cancel(SequenceId id);
  // Whether step() has something to do.
  bool has_work() const { return !records_.empty() || !steps_.empty(); }
  // Has one step carried out and returns the new tokens; the step after it may be under way then.
  // After an error of the runner all open sequences have ended with kError, and every further call
  // returns that error.
  Result<std::vector<TokenEvent>> step();

  // Null when the sequence is not open. Valid until the next call that is not const.
  const request::Sequence* sequence(SequenceId id) const;
  // Also null once the step that samples the last token is under way.
  const kvcache::KvPlacement* placement(SequenceId id) const { return scheduler_.placement(id); }
  // [num_instances]
  std::span<const scheduler::InstanceLoad> loads() const { return scheduler_.loads(); }
  const scheduler::Scheduler& scheduler() const { return scheduler_; }
  uint64_t num_steps() const { return num_steps_; }
  // Of the last step, [num_instances]: its work, and its time on the slowest instance.
  std::span<const scheduler::InstanceWorkCount> last_work() const { return last_work_; }
  int64_t last_duration_us() const { return last_duration_us_; }
  // Likewise; empty unless the runner profiles.
  std::span<const std::vector<PhaseSpan>> last_spans() const { return last_spans_; }
  // Likewise, device time between the step before and this one; empty unless the runner times it.
  std::span<const double> last_idle_us() const { return last_idle_us_; }

 private:
  // What every token needs besides the first fields of the sequence, which follow it in memory.
  struct RecordState {
    bool is_open = true;           // false: tokens are dropped
    bool has_stop_tokens = false;  // stop_tokens are not empty
    bool is_constrained = false;   // constraint is not null
    bool is_scored = false;        // prompt_scores are not empty
  };
  // An open sequence, or one that plans still name. Every step touches all that run, each in one
  // cache line.
  struct alignas(64) Record : RecordState, request::Sequence {
    std::vector<TokenId> stop_tokens;       // sorted; those that end this sequence
    std::vector<TokenId> forbidden_tokens;  // the request's own, back in force after min_tokens
    // Taken when the scheduler let go of the sequence, which is before its last token is read.
    std::unique_ptr<SequenceSummary> summary;
    std::unique_ptr<request::ConstraintState> constraint;
    std::vector<TokenScore> prompt_scores;  // until the first token is read
  };
  // A planned step that is not over.
  struct Step {
    scheduler::StepPlan* plan;
    std::optional<StepTicket> ticket;  // none: it waits for the tokens of the step before
    // Sequences that ended since it was planned: it may still name them.
    std::vector<std::unique_ptr<Record>> ended;
  };

  std::unique_ptr<Record> make_record(request::Request request);
  void plan_next();
  void announce_tokens(const scheduler::StepPlan& plan);
  static bool needs_tokens_read(const scheduler::StepPlan& plan);
  static Record& record_of(request::Sequence& sequence) { return static_cast<Record&>(sequence); }
  void leave(Record& record, request::FinishReason reason);
  void bury(std::unique_ptr<Record> record);
  Result<StepResult> wait_first();
  Status check_result(const StepResult& result, const scheduler::StepPlan& plan) const;
  std::vector<TokenEvent> commit_tokens(const scheduler::StepPlan& plan,
                                        std::vector<SampledToken>& tokens);
  void keep_scores(std::vector<ScoredToken>& scored);
  void commit_token(Record& record, SampledToken& sampled, TokenEvent& event);
  static Status start_constraint(Record& record);
  static Status set_allowed_tokens(Record& record);
  static Status follow_constraint(Record& record, TokenId token);
  void launch_waiting(const scheduler::StepPlan& finished, const std::vector<SampledToken>& tokens);
  request::FinishReason finish_reason(const Record& record, TokenId token) const;
  std::unique_ptr<SequenceSummary> summarize(const Record& record) const;
  Error fail(Error error);
  void drain();

  const EngineOptions options_;
  ModelRunner& runner_;
  const Clock& clock_;
  Random random_;
  scheduler::Scheduler scheduler_;
  std::unordered_map<SequenceId, std::unique_ptr<Record>> records_;
  std::deque<Step> steps_;        // at most two
  std::optional<Error> failure_;  // of the runner; final
  SequenceId next_id_ = 1;
  uint64_t num_steps_ = 0;
  std::vector<scheduler::InstanceWorkCount> last_work_;
  int64_t last_duration_us_ = 0;
  std::vector<std::vector<PhaseSpan>> last_spans_;
  std::vector<double> last_idle_us_;
};

}  // namespace nanocp::engine
