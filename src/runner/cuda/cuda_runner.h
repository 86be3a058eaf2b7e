// The GPU runner: a thread per instance that owns its GPU's context, and the fan-out of steps to
// them. See runner/device_runner.h.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend/device_info.h"
#include "comm/device/exchange_group.h"
#include "model/memory_estimate.h"
#include "runner/cuda/cuda_instance.h"
#include "runner/device/device_limits.h"
#include "runner/device_runner.h"

namespace nanocp::runner {

class CudaRunner final : public DeviceRunner {
 public:
  static Result<std::unique_ptr<DeviceRunner>> create(
      std::shared_ptr<const model::ModelSpec> spec,
      std::shared_ptr<const model::ModelWeights> weights, const DeviceRunnerOptions& options);
  ~CudaRunner() override;

  engine::StepTicket launch(const scheduler::StepPlan& plan) override;
  Result<engine::StepResult> wait(engine::StepTicket ticket) override;
  bool runs_ahead() const override;
  bool can_launch_ahead(const scheduler::StepPlan& next) const override;
  int64_t num_blocks() const override { return num_blocks_; }
  const std::string& device_name() const override { return device_name_; }
  Status renew_dummy_kv() override;

 private:
  struct Worker {
    std::unique_ptr<CudaInstance> instance;
    Status status = ok_status();
    std::thread thread;
  };
  using Task = std::function<Status(CudaInstance&)>;

  CudaRunner(std::shared_ptr<const model::ModelSpec> spec, const DeviceRunnerOptions& options);
  Status open_devices();
  // Settles options_.exchange and what follows from it.
  Status settle_exchange();
  Status start(const model::ModelWeights* weights);
  Status plan_weights(const model::ModelWeights* weights);
  Status check_weights_fit() const;
  Status load(const model::ModelWeights* weights);
  Status make_group(int64_t num_blocks);
  Status check_blocks_fit(int64_t num_blocks) const;
  KvRoom kv_room(InstanceId instance, int64_t existing_blocks) const;
  Status connect(int64_t num_blocks);
  Result<int64_t> choose_num_blocks();
  void check_exchange_orders() const;
  // Runs `task` on every instance's thread and waits; the first failure.
  Status run_on_all(const char* what, const Task& task);
  void begin(const Task& task);
  bool wait_finished(int64_t timeout_us);
  // Until all instances have carried out the last task begun.
  Status wait_for_instances();
  Status first_failure() const;
  void work(InstanceId instance);
  bool wait_for_task(uint64_t& seen);
  std::string unfinished_instances() const;
  void note(const std::string& line) const;

  // Constant after construction.
  const std::shared_ptr<const model::ModelSpec> spec_;
  DeviceRunnerOptions options_;
  std::vector<int> devices_;  // [num_instances]
  std::string device_name_;
  std::vector<backend::DeviceInfo> found_;  // all GPUs, as they were before loading
  ExpertFormats expert_formats_;
  model::WeightBytes weight_bytes_;  // on the GPUs
  int64_t num_blocks_ = 0;
  bool has_kernels_ = false;

  // Engine's thread.
  uint64_t num_launched_ = 0;
  uint64_t num_waited_ = 0;
  bool all_on_gpu_ = false;  // the last step launched samples on the GPU alone

  std::unique_ptr<comm::ExchangeGroup> group_;
  // Each touched by its own thread while a task runs, by the engine's thread otherwise.
  std::vector<Worker> workers_;

  std::atomic<uint64_t> task_number_{0};  // tasks begun; raised under mutex_
  std::atomic<int> num_unfinished_{0};
  std::vector<std::atomic<uint64_t>> finished_;  // [num_instances] last task finished
  std::atomic<bool> stopping_{false};
  // Guarded by mutex_.
  std::mutex mutex_;
  std::condition_variable task_ready_;
  std::condition_variable task_done_;
  Task task_;  // stays as it is while a task runs
};

}  // namespace nanocp::runner
