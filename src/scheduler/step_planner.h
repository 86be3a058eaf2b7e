// Decides one step: who gets rows, who grows where, who is admitted, who must give blocks back.
// Works on copies of the loads and changes no state (but its own scratch index in Entry); Scheduler
// commits the decision. Owned by Scheduler; one thread. See CONTRACT.md, scheduler.plan.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "scheduler/growth_forecast.h"
#include "scheduler/policy.h"
#include "scheduler/scheduler_state.h"

namespace nanocp::scheduler {

// The entry keeps its first `num_kept` blocks.
struct PlannedTruncation {
  Entry* entry;
  int64_t num_kept;
  bool was_running;  // then it goes back to the queue
};
struct PlannedGrowth {
  Entry* entry;
  InstanceId holder;  // of the one new block
};
// A decoding entry gets its rows from another instance from now on.
struct PlannedMove {
  Entry* entry;
  InstanceId binding;
};
struct PlannedAdmission {
  Entry* entry;
  AdmissionDecision decision;
};
struct PlannedChunk {
  Entry* entry;
  InstanceId binding;
  int32_t num_tokens;
};
// `entry` had no room and `count` later ones were admitted before it.
struct PlannedOvertake {
  Entry* entry;
  int32_t count;
};

struct StepDecision {
  std::vector<PlannedTruncation> truncations;
  std::vector<PlannedGrowth> growths;
  std::vector<PlannedAdmission> admissions;
  std::vector<PlannedMove> moves;
  std::vector<PlannedChunk> chunks;  // besides decode rows: prefilling, then admitted
  std::vector<PlannedOvertake> overtakes;
  std::vector<InstanceLoad> loads;  // [num_instances], what commit must arrive at
  size_t num_decode_rows = 0;       // those that stay
  bool preempted = false;           // a running sequence goes back to the queue
  bool synthesized = false;  // an admission brings synthetic K/V, and rows from the next plan on

  bool has_rows() const { return num_decode_rows > 0 || !chunks.empty(); }
  void reset();
};

class StepPlanner {
 public:
  StepPlanner(const SchedulerState& state, const Policy& policy);

  // Valid until the next call.
  const StepDecision& plan();

 private:
  struct Drop {
    Entry* entry;
    int64_t num_kept;
  };

  void plan_growth();
  void plan_moves();
  void plan_prefilling();
  void plan_admissions();

  bool try_grow(Entry* entry);
  std::optional<InstanceId> find_growth_holder(const RequestShape& shape) const;
  Entry* find_victim(const Entry* needy, const RequestShape& shape) const;
  void preempt(Entry* victim);
  void take_from(Entry* victim, const RequestShape& shape);
  bool is_planned_away(const Entry* entry) const { return entry->truncation_idx >= 0; }
  int64_t num_kept(const Entry* entry) const;
  void set_kept(Entry* entry, int64_t num_kept);

  // The routes of a running entry's shards are counted in the loads, or no more (sign -1).
  void charge_routes(const Entry& entry, InstanceId binding, int32_t sign);
  void charge_route(InstanceId binding, InstanceId holder, int32_t sign);
  InstanceId choose_binding(const Entry& entry, int64_t num_pending_tokens);
  void schedule(Entry* entry, InstanceId binding);

  bool try_admit(Entry* entry, bool is_head);
  bool has_row_and_seat() const;
  void set_admission_load(InstanceId instance);
  void refresh_admission_loads();
  void refresh_admission_loads(const PlannedAdmission& admission);
  std::optional<AdmissionDecision> ask(const RequestShape& shape);
  std::optional<AdmissionDecision> ask(const std::vector<InstanceLoad>& loads,
                                       const RequestShape& shape) const;
  std::optional<AdmissionDecision> checked(std::optional<AdmissionDecision> decision) const;
  bool reserves_growth() const {
    return num_running_ > 0 && state_.options.reserves_growth && policy_.reserves_growth();
  }
  bool leaves_room_to_grow(const AdmissionDecision& decision, const RequestShape& shape,
                           const std::vector<InstanceLoad>& loads);
  std::optional<AdmissionDecision> ask_with_reserve(const RequestShape& shape);
  void find_holders(const AdmissionDecision& decision, const kvcache::KvPlacement& placement);
  static void add_newcomer(const BlockSpan& span, int64_t degree, const RequestShape& shape,
                           GrowthForecast::Newcomers& newcomers);
  std::optional<AdmissionDecision> plan_with_eviction(const Entry* entry,
                                                      const RequestShape& shape);
  std::vector<Drop> find_drops(const Entry* entry, const RequestShape& shape,
                               std::vector<InstanceLoad>& loads) const;
  void keep_needless_drops(std::vector<Drop>& drops, const RequestShape& shape,
                           std::vector<InstanceLoad>& loads) const;
  void charge_spans(const AdmissionDecision& decision, const RequestShape& shape);

  RequestShape shape_of(const Entry& entry, int64_t num_new_blocks) const;
  ClusterView view() const { return view_of(decision_.loads); }
  ClusterView view_of(const std::vector<InstanceLoad>& loads) const;

  const SchedulerState& state_;
  const Policy& policy_;
  std::vector<int64_t> num_reserved_;  // [num_instances] blocks of the watermark
  StepDecision decision_;
  // As admissions see them, once the first is planned (else empty), and the policy's index of them.
  std::vector<InstanceLoad> admission_loads_;
  std::unique_ptr<AdmissionIndex> admission_index_;
  std::vector<GrowthForecast::Newcomers> newcomers_;  // [num_instances], of this step
  std::vector<BlockSpan> holders_;                    // scratch
  std::vector<int64_t> num_waiting_blocks_;           // [num_instances], scratch copy
  std::vector<bool> is_short_;   // [num_instances], growth has found no free block
  std::vector<Entry*> growing_;  // scratch
  int32_t num_running_ = 0;      // scratch count
};

}  // namespace nanocp::scheduler
