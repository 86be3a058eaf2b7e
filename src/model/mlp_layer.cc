#include "model/mlp_layer.h"

#include <algorithm>

#include "ops/activation.h"
#include "ops/linear.h"
#include "ops/topk_gate.h"

namespace nanocp::model {

MlpLayer::MlpLayer(const ModelSpec& spec, InstanceId instance, const ExpertPlacement& placement,
                   ops::Context context, comm::ExpertDispatcher& dispatcher, PhaseClock& phases)
    : spec_(spec),
      instance_(instance),
      placement_(placement),
      context_(context),
      dispatcher_(dispatcher),
      phases_(phases),
      expert_rows_(static_cast<size_t>(spec.moe.num_experts)) {}

Status MlpLayer::run(const LayerSpec& layer, const LayerWeights& weights, tensor::ConstMatrix x,
                     tensor::Matrix out) {
  if (!layer.is_moe) {
    run_gated(weights.dense, x, out);
    return ok_status();
  }
  NANOCP_RETURN_IF_ERROR(dispatch(weights, x));
  // While rows travel.
  phases_.mark(StepPhase::kDense);
  if (!weights.shared.gate.weight.empty()) {
    run_gated(weights.shared, x, out);
  } else {
    for (int64_t r = 0; r < out.rows; ++r) std::fill_n(out.row(r), out.cols, 0.0F);
  }
  phases_.mark(StepPhase::kIdleWait);
  NANOCP_RETURN_IF_ERROR(receive());
  phases_.mark(StepPhase::kExperts);
  for (size_t e = 0; e < expert_rows_.size(); ++e) {
    if (!expert_rows_[e].empty()) run_expert(weights.experts[e], expert_rows_[e]);
  }
  phases_.mark(StepPhase::kCombine);
  for (size_t source = 0; source < received_.size(); ++source) {
    dispatcher_.post_combine(static_cast<InstanceId>(source));
  }
  return dispatcher_.combine(out);
}

Status MlpLayer::dispatch(const LayerWeights& weights, tensor::ConstMatrix x) {
  const RouterSpec& router = spec_.moe.router;
  const tensor::Matrix logits = router_logits_.resize(x.rows, spec_.moe.num_experts);
  ops::linear(context_, x, weights.router.weight, weights.router.bias, logits);
  phases_.mark(StepPhase::kDispatch);
  const auto count = static_cast<size_t>(x.rows) * static_cast<size_t>(router.topk);
  topk_idx_.resize(count);
  topk_weights_.resize(count);
  ops::topk_gate(router, logits, weights.correction_bias, topk_idx_, topk_weights_);
  return dispatcher_.dispatch({x, topk_idx_, topk_weights_, placement_.owners()});
}

Status MlpLayer::receive() {
  const auto num_instances = static_cast<size_t>(placement_.num_instances());
  received_.resize(num_instances);
  sums_.resize(num_instances);
  for (auto& rows : expert_rows_) rows.clear();
  for (size_t i = 0; i < num_instances; ++i) {
    const auto source = static_cast<InstanceId>(i);
    NANOCP_ASSIGN_OR_RETURN(received_[i], dispatcher_.wait_rows(source));
    sums_[i] = dispatcher_.combine_slots(source);
    for (int64_t r = 0; r < sums_[i].rows; ++r) std::fill_n(sums_[i].row(r), sums_[i].cols, 0.0F);
    collect(source);
  }
  return ok_status();
}

void MlpLayer::collect(InstanceId source) {
  const auto& received = received_[static_cast<size_t>(source)];
  const auto topk = static_cast<size_t>(spec_.moe.router.topk);
  for (size_t i = 0; i < received.topk_idx.size(); ++i) {
    const int32_t expert = received.topk_idx[i];
    if (placement_.owner(expert) != instance_) continue;
    expert_rows_[static_cast<size_t>(expert)].push_back(
        {source, static_cast<int64_t>(i / topk), received.topk_weights[i]});
  }
}

void MlpLayer::run_expert(const GatedMlpWeights& weights, const std::vector<ExpertRow>& rows) {
  const auto count = static_cast<int64_t>(rows.size());
  const tensor::Matrix in = expert_in_.resize(count, spec_.hidden_size);
  const tensor::Matrix out = expert_out_.resize(count, spec_.hidden_size);
  for (int64_t i = 0; i < count; ++i) {
    const ExpertRow& row = rows[static_cast<size_t>(i)];
    const auto& x = received_[static_cast<size_t>(row.source)].x;
    std::copy_n(x.row(row.slot), x.cols, in.row(i));
  }
  run_gated(weights, in, out);
  for (int64_t i = 0; i < count; ++i) {
    const ExpertRow& row = rows[static_cast<size_t>(i)];
    float* sum = sums_[static_cast<size_t>(row.source)].row(row.slot);
    const float* values = out.row(i);
    for (int64_t c = 0; c < out.cols; ++c) sum[c] += row.weight * values[c];
  }
}

void MlpLayer::run_gated(const GatedMlpWeights& weights, tensor::ConstMatrix x,
                         tensor::Matrix out) {
  const tensor::Matrix gate = gate_.resize(x.rows, weights.gate.weight.rows);
  const tensor::Matrix up = up_.resize(x.rows, weights.up.weight.rows);
  ops::linear(context_, x, weights.gate.weight, weights.gate.bias, gate);
  ops::linear(context_, x, weights.up.weight, weights.up.bias, up);
  ops::gated_activation(spec_.moe.activation, gate, up);
  ops::linear(context_, gate, weights.down.weight, weights.down.bias, out);
}

}  // namespace nanocp::model
