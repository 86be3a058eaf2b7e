// Runs steps on CPU instances: a thread per instance, each with its own KV cache and its share of
// the experts; weights are shared read-only. The engine's thread launches and waits.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "comm/loopback/loopback_group.h"
#include "engine/model_runner.h"
#include "model/instance_model.h"

namespace nanocp::runner {

struct CpuRunnerOptions {
  int num_instances = 1;
  int block_size = 16;
  int64_t num_blocks = 0;  // per instance
  tensor::KvFormat kv_format = tensor::KvFormat::kF32;
  int max_rows = 512;                     // per instance and step
  int num_threads = 0;                    // in all; 0: one per core
  int64_t wait_timeout_us = 30'000'000;   // of one wait of an instance for another
  int64_t step_timeout_us = 600'000'000;  // of the engine for a whole step
  bool profile = false;                   // time the phases of each step
  bool time_steps = false;                // and what lies between steps: StepResult::idle_us
  bool keep_logits = false;               // hand the raw logits of every sampled row back
};

class CpuRunner final : public engine::ModelRunner {
 public:
  // Fails if the options are out of range or the KV cache does not fit into memory.
  static Result<std::unique_ptr<CpuRunner>> create(
      std::shared_ptr<const model::ModelSpec> spec,
      std::shared_ptr<const model::ModelWeights> weights, const CpuRunnerOptions& options);
  ~CpuRunner() override;

  engine::StepTicket launch(const scheduler::StepPlan& plan) override;
  Result<engine::StepResult> wait(engine::StepTicket ticket) override;

 private:
  struct Instance {
    std::unique_ptr<model::InstanceModel> model;
    // Of the current step.
    std::vector<engine::SampledToken> tokens;
    std::vector<engine::ScoredToken> scored;
    Status status = ok_status();
    std::thread thread;
  };

  CpuRunner(std::shared_ptr<const model::ModelSpec> spec,
            std::shared_ptr<const model::ModelWeights> weights, const CpuRunnerOptions& options);
  void start_instance(InstanceId instance, int num_threads);
  void work(InstanceId instance);
  void run_step(InstanceId instance, const scheduler::StepPlan& plan);
  Status sample(InstanceId instance, const scheduler::StepPlan& plan, tensor::Matrix logits);
  void score(InstanceId instance, const scheduler::StepPlan& plan);
  bool wait_finished(std::unique_lock<std::mutex>& lock);
  Result<engine::StepResult> collect();
  std::string unfinished_instances() const;

  // Constant after construction.
  const std::shared_ptr<const model::ModelSpec> spec_;
  const std::shared_ptr<const model::ModelWeights> weights_;
  const CpuRunnerOptions options_;
  comm::LoopbackGroup group_;

  // Each touched by its own thread while a step runs, by the engine's thread otherwise.
  std::vector<Instance> instances_;

  // Guarded by mutex_.
  mutable std::mutex mutex_;
  std::condition_variable step_ready_;
  std::condition_variable step_done_;
  const scheduler::StepPlan* plan_ = nullptr;
  uint64_t step_ = 0;                 // launched so far
  std::vector<uint64_t> finished_;    // [num_instances] last step finished
  std::vector<int64_t> duration_us_;  // [num_instances] of that step
  std::vector<double> idle_us_;       // [num_instances] before that step
  bool stopping_ = false;
};

}  // namespace nanocp::runner
