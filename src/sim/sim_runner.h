// A ModelRunner that computes nothing: it takes as long as the cost model says, on the simulation's
// own clock, and samples token 0 everywhere. Owned by the simulation; one thread.
#pragma once

#include <cstdint>
#include <vector>

#include "base/clock.h"
#include "engine/model_runner.h"
#include "scheduler/cost_model.h"

namespace nanocp::sim {

class SimRunner final : public engine::ModelRunner {
 public:
  // Requires: model.shape.num_instances instances in every plan; the clock outlives the runner.
  // `is_ideal`: charges CostModel::ideal_step.
  SimRunner(const scheduler::CostModel& model, int32_t block_size, bool is_ideal,
            ManualClock& clock);

  engine::StepTicket launch(const scheduler::StepPlan& plan) override;
  Result<engine::StepResult> wait(engine::StepTicket ticket) override;
  // Only for models with window layers, what others see is in the plan's counts.
  bool reads_tables() const override { return model_.shape.num_window_layers > 0; }

  // Of the last step.
  const scheduler::StepCost& last_cost() const { return cost_; }
  std::span<const scheduler::InstanceWork> last_work() const { return work_; }

 private:
  scheduler::InstanceWork weigh(const scheduler::InstanceWorkCount& count) const;
  void count_window(const AttentionItem& item, scheduler::InstanceWork& work) const;

  const scheduler::CostModel model_;
  const int32_t block_size_;
  const bool is_ideal_;
  ManualClock& clock_;
  std::vector<scheduler::InstanceWork> work_;  // [num_instances]
  scheduler::StepCost cost_;
  engine::StepResult result_;
  double remainder_us_ = 0.0;  // of the clock's whole microseconds
};

}  // namespace nanocp::sim
