// A scheduler with sequences and no runner, for the tests of this folder.
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "scheduler/check_plan.h"
#include "scheduler/scheduler.h"

namespace nanocp::scheduler {

using request::FinishReason;
using request::Sequence;
using request::SequenceStatus;

// Does what a test tells it to.
class ScriptedPolicy final : public Policy {
 public:
  std::vector<BlockSpan> spans;  // of every admission, as they are
  InstanceId home = 0;           // takes everything when there are no spans
  InstanceId admission_binding = 0;
  InstanceId growth = 0;
  InstanceId binding = 0;
  std::vector<InstanceId> permitted = {0};

  std::string_view name() const override { return "scripted"; }
  int64_t max_request_blocks(std::span<const int64_t>, const RequestShape&) const override {
    return 1000;
  }
  std::optional<AdmissionDecision> plan_admission(const ClusterView& view,
                                                  const RequestShape& shape) const override {
    if (!spans.empty()) return AdmissionDecision{admission_binding, spans};
    if (view.at(home).num_free_blocks < shape.num_new_blocks) return std::nullopt;
    return AdmissionDecision{admission_binding, {{home, shape.num_new_blocks}}};
  }
  std::optional<InstanceId> plan_growth(const ClusterView&, const RequestShape&) const override {
    return growth;
  }
  bool permits_growth(const ClusterView&, const RequestShape&, InstanceId i) const override {
    return std::find(permitted.begin(), permitted.end(), i) != permitted.end();
  }
  InstanceId plan_binding(const ClusterView&, const BindingQuery&) const override {
    return binding;
  }
};

// A scheduler with its sequences; every sampled token is 7.
struct Bench {
  explicit Bench(SchedulerOptions options, std::unique_ptr<Policy> policy = nullptr)
      : limits{options.block_size, options.num_blocks, options.num_instances_per_domain} {
    if (policy == nullptr) {
      auto owned = std::make_unique<ScriptedPolicy>();
      script = owned.get();
      policy = std::move(owned);
    }
    scheduler = std::make_unique<Scheduler>(std::move(options), std::move(policy));
  }

  Sequence& add(int32_t num_prompt, int32_t max_tokens, int32_t priority = 0) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = sequences.size() + 1;
    sequence->request.prompt.assign(static_cast<size_t>(num_prompt), 5);
    sequence->request.max_tokens = max_tokens;
    sequence->request.priority = priority;
    NANOCP_CHECK(scheduler->add(sequence.get()).ok());
    sequences.push_back(std::move(sequence));
    return *sequences.back();
  }

  const StepPlan& plan() {
    const StepPlan& plan = scheduler->plan_step();
    const Status checked = check_plan(plan, limits);
    if (!checked.ok()) check_failed(__FILE__, __LINE__, checked.error().message);
    scheduler->check_integrity();
    return plan;
  }

  // Tokens that each sequence had in the step, by id.
  std::map<SequenceId, int32_t> step() {
    std::map<SequenceId, int32_t> rows;
    std::vector<SequenceId> sampled;
    const StepPlan& now = plan();
    for (const ScheduledChunk& chunk : now.chunks) {
      rows[chunk.sequence] = chunk.num_tokens;
      if (chunk.samples) sampled.push_back(chunk.sequence);
    }
    if (now.empty()) return rows;
    scheduler->commit_step();
    for (const SequenceId id : sampled) append_token(id);
    scheduler->check_integrity();
    return rows;
  }

  void append_token(SequenceId id) {
    Sequence& sequence = *sequences[id - 1];
    if (sequence.status == SequenceStatus::kFinished) return;
    sequence.output.push_back(7);
    if (std::ssize(sequence.output) == sequence.request.max_tokens) {
      scheduler->remove(id, FinishReason::kLength);
    }
  }

  PlanLimits limits;
  ScriptedPolicy* script = nullptr;
  std::vector<std::unique_ptr<Sequence>> sequences;
  std::unique_ptr<Scheduler> scheduler;
};

inline SchedulerOptions options_of(std::vector<int64_t> num_blocks) {
  SchedulerOptions options;
  options.num_blocks = std::move(num_blocks);
  options.block_size = 4;
  options.max_batched_tokens = 16;
  options.max_num_seqs = 8;
  options.watermark = 0.0;
  options.reserves_growth = false;
  return options;
}

inline std::unique_ptr<Policy> policy_of(const std::string& name, int32_t num_instances) {
  return std::move(*make_policy(name, {.num_instances = num_instances, .degree = num_instances}));
}

}  // namespace nanocp::scheduler
