// A ModelRunner that computes nothing: it takes as long as the cost model says, on the simulation's
// own clock, and samples token 0 everywhere. Owned by the simulation; one thread. Times are rounded
// to nanoseconds, so that they do not depend on the last bits of a machine's arithmetic.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
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
  // Only for models with window layers, what others see is in the plan's counts; and where somebody
  // else needs them.
  bool reads_tables() const override {
    return model_.shape.num_window_layers > 0 || needs_tables || runs_ahead();
  }
  bool runs_ahead() const override { return allows_ahead != nullptr; }
  bool can_launch_ahead(const scheduler::StepPlan& /*next*/) const override {
    return allows_ahead();
  }

  // To be set before the first step. Called with each plan before it is carried out.
  std::function<void(const scheduler::StepPlan& plan)> on_launch;
  bool needs_tables = false;
  // When set the engine plans a step ahead, and launches it ahead where this says so.
  std::function<bool()> allows_ahead;

  // Of the last step that is over.
  const scheduler::StepCost& last_cost() const { return last().cost; }
  std::span<const scheduler::InstanceWork> last_work() const { return last().work; }

 private:
  struct Step {
    std::vector<scheduler::InstanceWork> work;  // [num_instances]
    scheduler::StepCost cost;
    engine::StepResult result;
  };

  const Step& last() const { return steps_[(num_waited_ + 1) % 2]; }
  scheduler::InstanceWork weigh(const scheduler::InstanceWorkCount& count) const;
  void count_window(const AttentionItem& item, scheduler::InstanceWork& work) const;

  const scheduler::CostModel model_;
  const int32_t block_size_;
  const bool is_ideal_;
  ManualClock& clock_;
  std::array<Step, 2> steps_;  // at most two are in flight
  uint64_t num_launched_ = 0;
  uint64_t num_waited_ = 0;
  int64_t remainder_ns_ = 0;  // of the clock's whole microseconds
};

}  // namespace nanocp::sim
