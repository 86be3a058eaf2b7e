#include "model/instance_model.h"

#include <algorithm>

#include "ops/linear.h"
#include "ops/norm.h"

namespace nanocp::model {
namespace {

void add_to(tensor::Matrix hidden, tensor::ConstMatrix delta) {
  for (int64_t r = 0; r < hidden.rows; ++r) {
    float* row = hidden.row(r);
    const float* values = delta.row(r);
    for (int64_t c = 0; c < hidden.cols; ++c) row[c] += values[c];
  }
}

}  // namespace

comm::ExchangeShape make_exchange_shape(const ModelSpec& spec, int32_t num_instances,
                                        int64_t max_rows) {
  const AttentionSpec& attention = spec.attention;
  return {.num_instances = num_instances,
          .max_rows = max_rows,
          .query_values = int64_t{attention.num_heads} * attention.cache_k_dim(),
          .kv_values = attention.cache_values_per_token(),
          .partial_values = int64_t{attention.num_heads} * attention.cache_v_dim(),
          .lse_values = attention.num_heads,
          .hidden_values = spec.hidden_size,
          .topk = spec.moe.router.topk};
}

InstanceModel::InstanceModel(const ModelSpec& spec, const ModelWeights& weights,
                             const InstanceModelOptions& options,
                             std::unique_ptr<comm::ShardExchange> shard_exchange,
                             std::unique_ptr<comm::ExpertDispatcher> dispatcher)
    : spec_(spec),
      weights_(weights),
      pool_(options.num_threads),
      placement_(spec.moe.num_experts, options.num_instances),
      shard_exchange_(std::move(shard_exchange)),
      dispatcher_(std::move(dispatcher)),
      cache_(spec.attention, {.num_layers = spec.num_layers,
                              .block_size = options.block_size,
                              .num_blocks = options.num_blocks,
                              .format = options.kv_format}),
      phases_(options.profile),
      attention_(spec, options.block_size, options.instance, context_, *shard_exchange_, phases_),
      mlp_(spec, options.instance, placement_, context_, *dispatcher_, phases_) {}

Result<tensor::Matrix> InstanceModel::forward(const InstancePlan& plan) {
  phases_.start_step();
  phases_.mark(StepPhase::kDense);
  const tensor::Matrix hidden = hidden_.resize(plan.num_rows(), spec_.hidden_size);
  normed_.resize(hidden.rows, hidden.cols);
  delta_.resize(hidden.rows, hidden.cols);
  ops::gather_rows(weights_.embedding, plan.token_ids, hidden);
  attention_.begin_step(plan);
  for (int32_t layer = 0; layer < spec_.num_layers; ++layer) {
    NANOCP_RETURN_IF_ERROR(run_layer(layer));
  }
  phases_.set_layer(-1);
  phases_.mark(StepPhase::kHead);
  return logits_of(plan.sample_rows);
}

Status InstanceModel::run_layer(int32_t layer) {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  phases_.set_layer(layer);
  phases_.mark(StepPhase::kDense);
  const LayerSpec& layer_spec = spec_.layers[static_cast<size_t>(layer)];
  const tensor::Matrix hidden = hidden_.view();
  ops::rms_norm(hidden, weights.input_norm, spec_.rms_norm_eps, normed_.view());
  NANOCP_RETURN_IF_ERROR(attention_.run({&weights, layer_spec.sliding_window, cache_.layer(layer)},
                                        normed_.view(), delta_.view()));
  add_to(hidden, delta_.view());
  ops::rms_norm(hidden, weights.post_attention_norm, spec_.rms_norm_eps, normed_.view());
  NANOCP_RETURN_IF_ERROR(mlp_.run(layer_spec, weights, normed_.view(), delta_.view()));
  add_to(hidden, delta_.view());
  return ok_status();
}

tensor::Matrix InstanceModel::logits_of(std::span<const int32_t> rows) {
  const auto count = static_cast<int64_t>(rows.size());
  const tensor::Matrix sampled = sampled_.resize(count, spec_.hidden_size);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(hidden_.view().row(rows[static_cast<size_t>(i)]), sampled.cols, sampled.row(i));
  }
  ops::rms_norm(sampled, weights_.final_norm, spec_.rms_norm_eps, sampled);
  const tensor::Matrix logits = logits_.resize(count, spec_.vocab_size);
  ops::linear(context_, sampled, weights_.lm_head.weight, weights_.lm_head.bias, logits);
  return logits;
}

}  // namespace nanocp::model
