// One instance's part of the model: it runs a step for its own rows and answers the others'. All
// instances of a group call forward() for every step, with or without rows.
// Owned by the runner; used by the instance's thread alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "comm/communicator.h"
#include "model/attention_layer.h"
#include "model/expert_placement.h"
#include "model/kv_cache.h"
#include "model/mlp_layer.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "model/phase_clock.h"
#include "plan/instance_plan.h"

namespace nanocp::model {

struct InstanceModelOptions {
  InstanceId instance = 0;
  int32_t num_instances = 1;
  int32_t num_threads = 1;
  int32_t block_size = 16;
  int64_t num_blocks = 0;
  tensor::KvFormat kv_format = tensor::KvFormat::kF32;
  bool profile = false;  // time the phases of every step
};

// Capacities of the exchanges that a model needs.
comm::ExchangeShape make_exchange_shape(const ModelSpec& spec, int32_t num_instances,
                                        int64_t max_rows);

class InstanceModel {
 public:
  // `spec` and `weights` are shared by the instances and outlive them.
  InstanceModel(const ModelSpec& spec, const ModelWeights& weights,
                const InstanceModelOptions& options,
                std::unique_ptr<comm::ShardExchange> shard_exchange,
                std::unique_ptr<comm::ExpertDispatcher> dispatcher);

  // Logits of plan.sample_rows, [sample_rows.size(), vocab]; valid until the next call.
  Result<tensor::Matrix> forward(const InstancePlan& plan);

  // Logits of own rows of the last forward(), [rows.size(), vocab]; valid until the next call. Runs
  // on this instance alone.
  tensor::Matrix logits_of(std::span<const int32_t> rows);

  // Started by forward(); whoever samples from the logits ends the step.
  PhaseClock& phases() { return phases_; }

 private:
  Status run_layer(int32_t layer);

  const ModelSpec& spec_;
  const ModelWeights& weights_;
  ThreadPool pool_;
  const ops::Context context_{&pool_};
  const ExpertPlacement placement_;
  std::unique_ptr<comm::ShardExchange> shard_exchange_;
  std::unique_ptr<comm::ExpertDispatcher> dispatcher_;
  KvCache cache_;
  PhaseClock phases_;
  AttentionLayer attention_;
  MlpLayer mlp_;
  tensor::MatrixBuffer hidden_;  // [rows, hidden], the residual stream
  tensor::MatrixBuffer normed_;
  tensor::MatrixBuffer delta_;    // what a half-layer adds
  tensor::MatrixBuffer sampled_;  // [samples, hidden]
  tensor::MatrixBuffer logits_;   // [samples, vocab]
};

}  // namespace nanocp::model
