// The decisions that differ between ways of spreading requests over instances: where a request's
// blocks go, where the next one goes, and which instance runs its rows. The scheduler owns one
// policy and calls it on one thread. A policy changes nothing: the scheduler applies what it says
// and keeps to the limits whatever it says.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kvcache/kv_placement.h"
#include "plan/ids.h"
#include "scheduler/placement_costs.h"
#include "scheduler/step_work.h"

namespace nanocp::scheduler {

// What one instance carries. In a ClusterView it includes what the step under way has planned.
struct InstanceLoad {
  int64_t num_blocks = 0;  // size of its pool
  int64_t num_free_blocks = 0;
  int64_t num_kv_tokens = 0;  // stored on it, whoever runs their rows
  int32_t num_sequences = 0;  // running ones that are bound to it
  int32_t num_rows = 0;       // of the step under way, or of the last one
  RouteCount routes = {};     // only in a ClusterView: of running sequences, one row each
  int32_t max_sequences = 0;
  int32_t max_rows = 0;  // per step

  int64_t num_used_blocks() const { return num_blocks - num_free_blocks; }
  int32_t num_rows_left() const { return max_rows - num_rows; }
  // One more sequence may be bound to it and get a row in this step.
  bool can_bind() const { return num_sequences < max_sequences && num_rows < max_rows; }
};

struct ClusterView {
  std::span<const InstanceLoad> instances;
  int32_t block_size;
  uint64_t num_admissions;  // so far; a clock for stateless routers
  // Instances [k * n, (k + 1) * n) are neighbours over fast links; 0: all are.
  int32_t num_instances_per_domain = 0;

  int32_t num_instances() const { return static_cast<int32_t>(instances.size()); }
  const InstanceLoad& at(InstanceId instance) const {
    return instances[static_cast<size_t>(instance)];
  }
  bool contains(InstanceId instance) const { return instance >= 0 && instance < num_instances(); }
  int32_t domain_size() const {
    return num_instances_per_domain > 0 ? std::min(num_instances_per_domain, num_instances())
                                        : num_instances();
  }
  int32_t domain_of(InstanceId instance) const { return instance / domain_size(); }
  int32_t num_domains() const { return (num_instances() + domain_size() - 1) / domain_size(); }
};

// A request as a policy sees it.
struct RequestShape {
  int64_t num_prompt_tokens = 0;
  int64_t num_tokens = 0;      // prompt and output so far
  int64_t num_new_blocks = 0;  // asked for now, beyond what the placement holds
  int64_t max_blocks = 0;      // when it reaches max_tokens
  const kvcache::KvPlacement* placement = nullptr;  // empty for a new request
};

// `num_blocks` neighbouring blocks on one holder. 0 gives the holder an empty shard.
struct BlockSpan {
  InstanceId holder;
  int64_t num_blocks;
};

struct AdmissionDecision {
  InstanceId binding = kNoInstance;
  std::vector<BlockSpan> spans;  // by rising position, num_new_blocks in all
};

struct BindingQuery {
  // Its counters of tokens may lag behind while decoding, its blocks do not.
  const kvcache::KvPlacement* placement = nullptr;
  InstanceId current = kNoInstance;
  int64_t num_pending_tokens = 0;  // 1 while decoding
};

// Which decoding sequences may get another binding; for those that prefill the policy is always
// asked.
enum class BindingMoves {
  kNone,
  kSplit,  // those with K/V elsewhere than on the binding
  kAll,
};

// What a policy knows of the instances while requests are admitted one after the other, so that no
// question looks at all of them. Whoever owns it says what has changed; one thread.
class AdmissionIndex {
 public:
  virtual ~AdmissionIndex() = default;
  // Anything may have changed.
  virtual void rebuild(const ClusterView& view) = 0;
  // Nothing has but the load of this instance.
  virtual void update(const ClusterView& view, InstanceId instance) = 0;
  // What Policy::plan_admission answers.
  virtual std::optional<AdmissionDecision> plan(const ClusterView& view,
                                                const RequestShape& shape) = 0;
};

class Policy {
 public:
  virtual ~Policy() = default;

  virtual std::string_view name() const = 0;
  // The largest request of this shape that is sure to fit when it has the instances to itself.
  // `shape` has no placement and num_new_blocks = 0.
  virtual int64_t max_request_blocks(std::span<const int64_t> capacities,
                                     const RequestShape& shape) const = 0;
  // Where the new blocks go and who runs the rows; nothing when there is no room at present.
  // Spans must not exceed free blocks. Must succeed for an accepted request when all other blocks
  // are free and no sequence runs.
  virtual std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                          const RequestShape& shape) const = 0;
  // The same for whoever asks often; the policy outlives it. None: each answer costs a look at all
  // instances.
  virtual std::unique_ptr<AdmissionIndex> make_admission_index() const { return nullptr; }
  // The instance that should take the next block; the scheduler falls back to another permitted
  // one when that is full or when there is no answer.
  virtual std::optional<InstanceId> plan_growth(const ClusterView& view,
                                                const RequestShape& shape) const = 0;
  // Whether the next block may go to `instance`.
  virtual bool permits_growth(const ClusterView& view, const RequestShape& shape,
                              InstanceId instance) const = 0;
  // The instance that should run the sequence's rows in this step. The current binding stays when
  // the answer has no seat or row left.
  virtual InstanceId plan_binding(const ClusterView& view, const BindingQuery& query) const = 0;
  // plan_binding is asked for these; of all others the answer must be the current one. Constant.
  virtual BindingMoves binding_moves() const { return BindingMoves::kAll; }
  // Whether admission leaves room for what runs to grow (CONTRACT.md, scheduler.reserve); constant.
  // Who waits for an instance whatever room it has would wait longer for all of them.
  virtual bool reserves_growth() const { return true; }
};

struct PolicyOptions {
  int32_t num_instances = 1;
  // bound: round_robin, least_requests, least_kv, power_of_two, any_instance
  std::string router = "least_kv";
  int32_t degree = 1;                   // uniform_cp, threshold_cp
  int64_t threshold_tokens = 32768;     // threshold_cp: longer prompts get `degree`
  int64_t min_tokens_per_shard = 4096;  // dcp: less is not worth another holder
  int32_t max_degree = 0;               // of any policy: instances that hold one request; 0: all
  PlacementCosts costs = {};            // dcp
  DcpParts parts = {};                  // dcp
};

// One of bound, uniform_cp, threshold_cp, dcp.
Result<std::unique_ptr<Policy>> make_policy(std::string_view name, const PolicyOptions& options);

}  // namespace nanocp::scheduler
