// The second half of a layer on one instance: a dense MLP, or router, expert exchange, the own
// experts over all received rows, and the shared experts. Owned by the instance; its thread only.
#pragma once

#include <vector>

#include "base/result.h"
#include "comm/communicator.h"
#include "model/expert_placement.h"
#include "model/model_spec.h"
#include "model/model_weights.h"
#include "model/phase_clock.h"
#include "ops/context.h"

namespace nanocp::model {

class MlpLayer {
 public:
  MlpLayer(const ModelSpec& spec, InstanceId instance, const ExpertPlacement& placement,
           ops::Context context, comm::ExpertDispatcher& dispatcher, PhaseClock& phases);

  // out := MLP output of the normed rows x. x, out [num_rows, hidden].
  Status run(const LayerSpec& layer, const LayerWeights& weights, tensor::ConstMatrix x,
             tensor::Matrix out);

 private:
  // A received row that one of the own experts works on.
  struct ExpertRow {
    InstanceId source;
    int64_t slot;
    float weight;
  };

  void run_gated(const GatedMlpWeights& weights, tensor::ConstMatrix x, tensor::Matrix out);
  Status dispatch(const LayerWeights& weights, tensor::ConstMatrix x);
  Status receive();
  void collect(InstanceId source);
  void run_expert(const GatedMlpWeights& weights, const std::vector<ExpertRow>& rows);

  const ModelSpec& spec_;
  const InstanceId instance_;
  const ExpertPlacement& placement_;
  const ops::Context context_;
  comm::ExpertDispatcher& dispatcher_;
  PhaseClock& phases_;

  std::vector<int32_t> topk_idx_;  // [rows * topk]
  std::vector<float> topk_weights_;
  std::vector<comm::ExpertDispatcher::Received> received_;  // by source
  std::vector<tensor::Matrix> sums_;                        // combine slots, by source
  std::vector<std::vector<ExpertRow>> expert_rows_;         // [num_experts]
  tensor::MatrixBuffer router_logits_;
  tensor::MatrixBuffer gate_, up_;
  tensor::MatrixBuffer expert_in_, expert_out_;
};

}  // namespace nanocp::model
