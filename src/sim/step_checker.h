// Watches an engine step by step and says which promise of scheduler/CONTRACT.md it breaks: plans
// and counters that agree, nobody passed too often, the most senior request never at a standstill,
// and all blocks back in the end. Keeps the open requests in a map; for tests and debug builds. One
// thread; the engine outlives it. It knows neither clock nor costs.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>

#include "base/result.h"
#include "engine/engine.h"

namespace nanocp::sim {

class StepChecker {
 public:
  explicit StepChecker(const engine::Engine& engine) : engine_(engine) {}

  // The engine has accepted a request, or lets go of it without a last token.
  void add(SequenceId id);
  void cancel(SequenceId id);

  // A plan by itself, before it is carried out.
  Status check_plan(const scheduler::StepPlan& plan) const;
  // After each step, with its tokens. Aborts where counters and placements disagree.
  Status check_step(std::span<const engine::TokenEvent> events);
  // When the engine has no work any more.
  Status check_end() const;

 private:
  struct Open {
    int64_t num_rows_max = 0;  // tokens whose K/V it can need at most
    // After the last step:
    bool is_waiting = true;
    bool is_decoding = false;
    int64_t num_cached = 0;
    int64_t num_outputs = 0;
    int32_t num_preemptions = 0;
    int32_t num_passed = 0;  // admissions of less senior requests in this spell of waiting
  };
  // (priority, id): ids are given in order of arrival.
  using Seniority = std::pair<int32_t, SequenceId>;

  Status check_overtakes();
  Status check_decoding();
  Status check_most_senior();
  Status check_progress(SequenceId id, bool is_waiting, int64_t num_cached);
  int64_t waiting_steps_max() const;
  // Null when the scheduler has let go of it: its last token is under way.
  const request::Sequence* find(SequenceId id) const;

  const engine::Engine& engine_;
  std::map<Seniority, Open> open_;
  std::map<SequenceId, Seniority> seniority_of_;
  int64_t num_rows_max_ = 0;  // of any request so far
  // The most senior request after the last step.
  SequenceId senior_ = 0;  // 0: none
  bool senior_is_waiting_ = false;
  int64_t senior_cached_ = 0;
  int64_t num_steps_waited_ = 0;
  int64_t num_steps_waited_max_ = 0;
};

}  // namespace nanocp::sim
