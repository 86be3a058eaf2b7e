// One instance on its GPU: weights, activations, step tables and captured graphs. Made by the
// runner; every other call comes from the instance's own thread. Steps are counted from 1, in the
// same order on all instances.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda/dense_product.h"
#include "backend/cuda/exchange_view.h"
#include "comm/device/exchange_group.h"
#include "comm/nvlink/exchange_layout.h"
#include "engine/model_runner.h"
#include "graph/step_graph.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "runner/cuda/device_weights.h"
#include "runner/cuda/instance_forward.h"
#include "runner/cuda/step_image.h"
#include "runner/cuda/token_masks.h"
#include "runner/device_runner.h"
#include "scheduler/step_plan.h"

namespace nanocp::runner {

class CudaInstance {
 public:
  CudaInstance(const model::ModelSpec& spec, const DeviceRunnerOptions& options, InstanceId id,
               int device);
  ~CudaInstance();
  CudaInstance(const CudaInstance&) = delete;
  CudaInstance& operator=(const CudaInstance&) = delete;

  // Whether the GPU's sampler does all of them; the rest is sampled on the host from copied logits.
  static bool samples_on_gpu(std::span<const scheduler::SampleTask> tasks);
  // Whether the kernels cover the model's shapes.
  static Status check_model(const model::ModelSpec& spec);
  // With the blocks of the staging slots.
  static comm::ExchangeCapacity exchange_capacity(const model::ModelSpec& spec,
                                                  const DeviceRunnerOptions& options,
                                                  int64_t num_blocks);
  // Blocks behind those of block tables, where K/V waits that is sent to other instances.
  static int64_t staging_blocks(const DeviceRunnerOptions& options);
  // Of one KV block in all layers.
  static int64_t block_bytes(const model::ModelSpec& spec, const DeviceRunnerOptions& options);

  InstanceId id() const { return id_; }
  // `done` is told the bytes loaded since its last call.
  Status load(const model::ModelWeights* weights, const ExpertFormats& expert_formats,
              const std::function<void(int64_t)>& done);
  Status connect(comm::ExchangeGroup& group, int64_t num_blocks);
  void disconnect();
  // See DeviceRunner; `num_blocks` as given to connect().
  Status renew_dummy_kv(int64_t num_blocks);
  // Loads the kernels of all steps and chooses the algorithms of their products, running nothing.
  // To load one in a step may mean to wait for other GPUs, whose kernels wait for this one.
  Status load_kernels();
  // A step of the most rows with no exchange of meaning, to learn how much memory a step takes.
  Status run_largest_step();
  Status capture();
  std::string describe_capture() const;
  // The exchanges of each captured graph, by its bucket of rows.
  const std::map<int64_t, std::vector<ExchangeMark>>& exchange_orders() const {
    return exchange_orders_;
  }

  struct Memory {
    int64_t total_bytes;
    int64_t free_bytes;
    int64_t weight_bytes;
    int64_t graph_reserve_bytes;  // expected of graphs that are not captured yet
  };
  Memory memory() const;

  // Puts a step behind the one that may be running; at most two are under way.
  Status enqueue_step(const scheduler::StepPlan& plan);
  // Waits for the older one and reads its tokens.
  Status finish_step();
  // Appends the tokens of the last finished step; engine's thread, while no task runs.
  void collect(engine::StepResult& result);

 private:
  // A step that has been enqueued, and where it leaves what the host reads.
  struct StepSlot {
    const scheduler::StepPlan* plan = nullptr;
    uint64_t step = 0;
    int64_t enqueued_us = 0;
    std::vector<bool> on_host;   // [num_samples] sampled on the host
    uint8_t* readout = nullptr;  // pinned, as InstanceForward::readout()
    cudaEvent_t done = nullptr;
  };

  Status make_slots();
  void free_slots();
  void fill_image(const scheduler::StepPlan& plan);
  Status begin_exchanges(const scheduler::StepPlan& plan);
  void plan_samples(const scheduler::StepPlan& plan, StepSlot& slot);
  cuda::SampleSpec sample_spec(const scheduler::SampleTask& task);
  Status enqueue_forward();
  Status wait_stream();
  // Until `poll` no longer answers cudaErrorNotReady.
  template <typename Poll>
  Status wait_for_gpu(uint64_t step, Poll poll) const;
  Status finish_samples(const StepSlot& slot);
  Status finish_scores(const StepSlot& slot);
  Status copy_logits(size_t first, size_t num_rows);
  void sample_on_host(const scheduler::SampleTask& task, engine::SampledToken& token);
  void read_times(const StepSlot& slot, int64_t end_us);
  bool is_graph_step() const;

  const model::ModelSpec& spec_;
  const DeviceRunnerOptions& options_;
  const InstanceId id_;
  const int device_;

  cudaStream_t stream_ = nullptr;
  comm::ExchangeLink* link_ = nullptr;  // of the group; null: kernels reach peers themselves
  std::unique_ptr<DeviceWeights> weights_;
  std::unique_ptr<InstanceForward> forward_;
  std::unique_ptr<StepImage> image_;
  std::unique_ptr<TokenMasks> masks_;
  std::map<int64_t, std::unique_ptr<graph::StepGraph>> graphs_;  // by bucket of rows
  std::map<int64_t, std::vector<ExchangeMark>> exchange_orders_;
  std::array<StepSlot, 2> slots_;  // used in turn
  uint64_t num_enqueued_ = 0;
  uint64_t num_finished_ = 0;
  std::vector<float> host_logits_;
  bool has_dummy_weights_ = false;
  uint64_t step_ = 0;
  int64_t capture_us_ = 0;
  int64_t capture_bytes_ = 0;
  size_t capture_nodes_ = 0;

  // Of the last finished step.
  std::vector<engine::SampledToken> tokens_;
  std::vector<engine::ScoredToken> scored_;
  std::vector<engine::PhaseSpan> spans_;  // when profiling
  int64_t duration_us_ = 0;               // from its launch, or the end of the step before
  double idle_us_ = 0.0;                  // GPU time since the end of the step before
  int64_t end_us_ = 0;                    // by the host's clock
  uint64_t end_ns_ = 0;                   // by the GPU's, when steps are timed
};

}  // namespace nanocp::runner
