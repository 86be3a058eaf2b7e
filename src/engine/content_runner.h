// A ModelRunner without a model, for tests of whatever plans steps. It keeps for every KV slot
// which token of which sequence was written there, reads them back as the attention items say, and
// makes each new token from all the tokens that its row could see. So tokens come out right only if
// every row saw exactly its own prefix, wherever it is held and whatever was preempted or moved.
// One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model_runner.h"

namespace nanocp::engine {

class ContentRunner final : public ModelRunner {
 public:
  struct Options {
    int32_t block_size;
    std::vector<int64_t> num_blocks;  // [num_instances]
    int32_t vocab_size = 1000;
    bool runs_ahead = false;
  };
  explicit ContentRunner(Options options);

  StepTicket launch(const scheduler::StepPlan& plan) override;
  Result<StepResult> wait(StepTicket ticket) override;
  bool runs_ahead() const override { return options_.runs_ahead; }
  bool can_launch_ahead(const scheduler::StepPlan& next) const override;

  // The token that follows `tokens` in this "model".
  static TokenId next_token(const std::vector<TokenId>& tokens, int32_t vocab_size);
  // `token`, or the first one behind it that the mask allows; 0 is behind the last one.
  static TokenId allowed_from(TokenId token, const TokenMask* mask, int32_t vocab_size);

  std::function<void()> during_wait;   // called while the step is in flight
  std::function<bool()> allows_ahead;  // asked by can_launch_ahead(); none: always
  std::string failure;                 // when set, wait() fails with it
  bool ignores_masks = false;
  int64_t num_rows = 0;            // so far
  int64_t num_remote_items = 0;    // so far
  int64_t num_launched_ahead = 0;  // steps so far

 private:
  using Mask = std::shared_ptr<const TokenMask>;
  struct Slot {
    SequenceId sequence = 0;
    int32_t position = -1;
    TokenId token = 0;
  };
  // What one row has seen.
  struct Seen {
    int64_t num_tokens = 0;
    uint64_t digest = 0;
  };

  void read_tokens(const scheduler::StepPlan& plan);
  void write(const scheduler::StepPlan& plan, size_t instance);
  Status read(const scheduler::StepPlan& plan, size_t instance);
  Status read_row(const AttentionItem& item, size_t instance, int32_t position, Seen& seen) const;
  Result<StepResult> sample(const scheduler::StepPlan& plan, const std::vector<Mask>& masks);

  Options options_;
  std::vector<std::vector<Slot>> slots_;  // [num_instances][num_blocks * block_size]
  // Of the step that wait() carries out.
  std::vector<std::vector<Seen>> seen_;          // [num_instances][rows]
  std::vector<std::vector<TokenId>> token_ids_;  // [num_instances][rows]
  std::vector<std::vector<TokenId>> sampled_;    // [num_instances], of the last step carried out
  struct Launched {
    const scheduler::StepPlan* plan;
    std::vector<Mask> masks;  // of its samples when it was launched, as a device would see them
  };
  std::deque<Launched> launched_;
};

}  // namespace nanocp::engine
