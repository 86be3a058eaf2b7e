// The attention of one layer on one instance: projections of the own rows, the shard exchange, and
// attention over the local shards for own and received rows (architecture: ARCHITECTURE.md).
// Owned by the instance; its thread only.
#pragma once

#include <vector>

#include "base/result.h"
#include "comm/communicator.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "model/phase_clock.h"
#include "ops/attention.h"
#include "ops/context.h"
#include "ops/rotary.h"

namespace nanocp::model {

class AttentionLayer {
 public:
  AttentionLayer(const ModelSpec& spec, int32_t block_size, InstanceId instance,
                 ops::Context context, comm::ShardExchange& exchange, PhaseClock& phases);

  // Once per step, before the first layer. `plan` stays valid until the last one.
  void begin_step(const InstancePlan& plan);

  struct Layer {
    const LayerWeights* weights;
    int32_t sliding_window;
    ops::KvCacheView cache;
  };
  // out := attention output of the normed rows x. x, out [num_rows, hidden].
  Status run(const Layer& layer, tensor::ConstMatrix x, tensor::Matrix out);

 private:
  void project(const LayerWeights& weights, tensor::ConstMatrix x);
  void project_gqa(const GqaWeights& weights, tensor::ConstMatrix x);
  void project_mla(const MlaWeights& weights, tensor::ConstMatrix x);
  void absorb_queries(const MlaWeights& weights, tensor::ConstMatrix q_full);
  Status attend_everywhere(const Layer& layer);
  Status answer(InstanceId source, const Layer& layer);
  Status merge_returned(InstanceId destination);
  void append(InstanceId source, const Layer& layer, tensor::ConstMatrix kv) const;
  void attend(std::span<const AttentionItem> items, const Layer& layer, tensor::ConstMatrix q,
              const comm::Partials& partials) const;
  void project_output(const LayerWeights& weights, tensor::Matrix out);
  ops::AttentionDesc desc_for(const Layer& layer) const;

  const ModelSpec& spec_;
  const AttentionSpec& attention_;
  const InstanceId instance_;
  const ops::Context context_;
  ThreadPool inline_pool_{1};  // for work that is parallel over heads already
  comm::ShardExchange& exchange_;
  PhaseClock& phases_;
  ops::AttentionDesc desc_;
  ops::RotaryTable rotary_;

  // Of the current step.
  const InstancePlan* plan_ = nullptr;
  std::vector<std::vector<AttentionItem>> items_of_;  // by source
  std::vector<std::vector<KvAppend>> appends_of_;

  tensor::MatrixBuffer q_;         // [rows, heads * k_dim], as the cache sees it
  tensor::MatrixBuffer kv_;        // [rows, values of one cache entry]
  tensor::MatrixBuffer q_latent_;  // MLA: [rows, q_lora_rank]
  tensor::MatrixBuffer q_full_;    // MLA: [rows, heads * (nope + rope)]
  tensor::MatrixBuffer out_;       // [rows, heads * v_dim]
  tensor::MatrixBuffer lse_;       // [rows, heads]
  tensor::MatrixBuffer values_;    // MLA: [rows, heads * v_head_dim]
};

}  // namespace nanocp::model
