// Lets the engine plan ahead on a runner that takes one step at a time: a step that was launched
// behind another one starts when it is waited for, with the tokens that the other has sampled by
// then. One thread.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "engine/model_runner.h"

namespace nanocp::e2e {

class AheadRunner final : public engine::ModelRunner {
 public:
  // `inner` outlives this and has no step in flight.
  explicit AheadRunner(engine::ModelRunner& inner) : inner_(inner) {}

  engine::StepTicket launch(const scheduler::StepPlan& plan) override;
  Result<engine::StepResult> wait(engine::StepTicket ticket) override;
  bool runs_ahead() const override { return true; }
  bool can_launch_ahead(const scheduler::StepPlan& /*next*/) const override { return true; }

  int64_t num_launched_ahead() const { return num_launched_ahead_; }

 private:
  engine::ModelRunner& inner_;
  std::deque<const scheduler::StepPlan*> launched_;
  std::vector<std::vector<TokenId>> sampled_;  // [num_instances], of the last step
  int64_t num_launched_ahead_ = 0;
};

}  // namespace nanocp::e2e
