// The second half of a layer, and the head: see instance_forward.h.
#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/router.h"
#include "backend/cuda/row_ops.h"
#include "backend/cuda/sampling.h"
#include "runner/cuda/instance_forward.h"

namespace nanocp::runner {

using cuda::cuda_status;

Status InstanceForward::product(const DeviceLinear& w, const void* x, void* out, int64_t rows,
                                bool float_out, cudaStream_t stream) {
  return products_->launch({.x = x,
                            .w = w.weight,
                            .out = out,
                            .rows = rows,
                            .cols = w.rows,
                            .depth = w.cols,
                            .x_stride = w.cols,
                            .out_stride = w.rows,
                            .float_out = float_out},
                           stream);
}

// mlp_sum := the MLP of the normed rows.
Status InstanceForward::gated_mlp(const DeviceMlp& mlp, const StepShape& shape,
                                  cuda::DenseProducts& products, cudaStream_t stream) {
  const int64_t intermediate = mlp.down.cols;
  NANOCP_RETURN_IF_ERROR(products.launch({.x = x_,
                                          .w = mlp.gate_up.weight,
                                          .out = buffers_.gate_up,
                                          .rows = shape.rows,
                                          .cols = 2 * intermediate,
                                          .depth = spec_.hidden_size,
                                          .x_stride = spec_.hidden_size,
                                          .out_stride = 2 * intermediate},
                                         stream));
  NANOCP_RETURN_IF_ERROR(
      cuda::launch_gated_activation({.header = header(),
                                     .rows = static_cast<int32_t>(shape.rows),
                                     .intermediate = static_cast<int32_t>(intermediate),
                                     .activation = spec_.moe.activation,
                                     .gate_up = buffers_.gate_up,
                                     .gate_up_stride = 2 * intermediate,
                                     .bias = mlp.gate_up.bias,
                                     .out = buffers_.activated,
                                     .out_stride = intermediate},
                                    stream));
  return products.launch({.x = buffers_.activated,
                          .w = mlp.down.weight,
                          .out = buffers_.mlp_sum,
                          .rows = shape.rows,
                          .cols = spec_.hidden_size,
                          .depth = intermediate,
                          .x_stride = intermediate,
                          .out_stride = spec_.hidden_size},
                         stream);
}

Status InstanceForward::run_dense_mlp(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceMlp& mlp = weights_.layers[static_cast<size_t>(layer)].dense;
  NANOCP_RETURN_IF_ERROR(gated_mlp(mlp, shape, *products_, stream));
  return cuda::launch_add_norm({.header = header(),
                                .rows = static_cast<int32_t>(shape.rows),
                                .hidden = spec_.hidden_size,
                                .delta = buffers_.mlp_sum,
                                .delta_stride = spec_.hidden_size,
                                .bias = mlp.down.bias,
                                .norm_weight = next_norm(layer),
                                .eps = spec_.rms_norm_eps,
                                .residual = buffers_.residual,
                                .x = x_,
                                .x_stride = spec_.hidden_size},
                               stream);
}

// The shared experts run beside router, exchange and routed experts, from here to the join.
Status InstanceForward::fork_shared(const DeviceMlp& mlp, const StepShape& shape,
                                    cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(cuda_status(cudaEventRecord(fork_, stream), "fork of the shared experts"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaStreamWaitEvent(side_stream_, fork_, 0), "fork of the shared experts"));
  NANOCP_RETURN_IF_ERROR(gated_mlp(mlp, shape, *side_products_, side_stream_));
  return cuda_status(cudaEventRecord(join_, side_stream_), "join of the shared experts");
}

int32_t InstanceForward::tile_rows(int32_t layer) const {
  return cuda::expert_tile_rows(weights_.layers[static_cast<size_t>(layer)].experts.shape);
}

Status InstanceForward::run_moe(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceMlp& shared = weights_.layers[static_cast<size_t>(layer)].shared;
  const bool has_shared = shared.down.weight != nullptr;
  if (has_shared) NANOCP_RETURN_IF_ERROR(fork_shared(shared, shape, stream));
  NANOCP_RETURN_IF_ERROR(dispatch(layer, shape, stream));
  NANOCP_RETURN_IF_ERROR(run_experts(layer, stream));
  if (has_shared) {
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaStreamWaitEvent(stream, join_, 0), "join of the shared experts"));
  }
  return combine(layer, stream);
}

// Router, choice of the experts, and rows out.
Status InstanceForward::dispatch(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  NANOCP_RETURN_IF_ERROR(cuda::launch_router({.header = header(),
                                              .rows = static_cast<int32_t>(shape.rows),
                                              .hidden = spec_.hidden_size,
                                              .num_experts = spec_.moe.num_experts,
                                              .residual = buffers_.residual,
                                              .norm_weight = w.post_attention_norm,
                                              .eps = spec_.rms_norm_eps,
                                              .weight = w.router.weight,
                                              .logits = buffers_.router_logits},
                                             stream));
  NANOCP_RETURN_IF_ERROR(mark(engine::Phase::kDispatch, layer, stream));
  begin_exchange(ExchangeMark::Kind::kExpert, moe_index_[static_cast<size_t>(layer)]);
  NANOCP_RETURN_IF_ERROR(
      cuda::launch_gate_dispatch({.step = image_.device(),
                                  .exchange = exchange_,
                                  .epoch = expert_epoch(layer),
                                  .rows = static_cast<int32_t>(shape.rows),
                                  .router = spec_.moe.router,
                                  .num_experts = spec_.moe.num_experts,
                                  .logits = buffers_.router_logits,
                                  .router_bias = w.router.bias,
                                  .correction_bias = w.correction_bias,
                                  .counter = buffers_.counters + kDispatchCounter},
                                 stream));
  return carry(cuda::WaitPurpose::kDispatch, layer, stream);
}

// The experts here, over the rows of all instances.
Status InstanceForward::run_experts(int32_t layer, cudaStream_t stream) {
  NANOCP_RETURN_IF_ERROR(mark(engine::Phase::kIdleWait, layer, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_expert_plan({.exchange = exchange_,
                                                   .epoch = expert_epoch(layer),
                                                   .expert_begin = expert_begin_,
                                                   .num_experts = num_local_experts_,
                                                   .tile_rows = tile_rows(layer),
                                                   .overlaps = true,
                                                   .lists = lists_},
                                                  stream));
  NANOCP_RETURN_IF_ERROR(mark(engine::Phase::kExperts, layer, stream));
  return cuda::launch_expert_mlp({.weights = weights_.layers[static_cast<size_t>(layer)].experts,
                                  .activation = spec_.moe.activation,
                                  .lists = lists_,
                                  .x = heap_ + exchange_.offsets.dispatch_x,
                                  .h = buffers_.expert_hidden,
                                  .y = buffers_.expert_out},
                                 stream);
}

// Sums back and together, with the residual and the norm of the next layer.
Status InstanceForward::combine(int32_t layer, cudaStream_t stream) {
  const bool has_shared = weights_.layers[static_cast<size_t>(layer)].shared.down.weight != nullptr;
  NANOCP_RETURN_IF_ERROR(mark(engine::Phase::kCombine, layer, stream));
  return launch_exchange(cuda::launch_combine,
                         cuda::CombineArgs{.step = image_.device(),
                                           .exchange = exchange_,
                                           .epoch = expert_epoch(layer),
                                           .num_experts = spec_.moe.num_experts,
                                           .y = buffers_.expert_out,
                                           .assignment_of = lists_.assignment_of,
                                           .shared = has_shared ? buffers_.mlp_sum : nullptr,
                                           .norm_weight = next_norm(layer),
                                           .eps = spec_.rms_norm_eps,
                                           .residual = buffers_.residual,
                                           .x = x_},
                         cuda::WaitPurpose::kCombine, layer, stream);
}

Status InstanceForward::run_head(const StepShape& shape, cudaStream_t stream) {
  const auto samples = static_cast<int32_t>(shape.samples);
  NANOCP_RETURN_IF_ERROR(cuda::launch_gather_norm({.header = header(),
                                                   .num_samples = samples,
                                                   .hidden = spec_.hidden_size,
                                                   .sample_rows = image_.device().sample_rows,
                                                   .residual = buffers_.residual,
                                                   .norm_weight = weights_.final_norm,
                                                   .eps = spec_.rms_norm_eps,
                                                   .out = buffers_.sampled},
                                                  stream));
  NANOCP_RETURN_IF_ERROR(products_->launch({.x = buffers_.sampled,
                                            .w = weights_.lm_head.weight,
                                            .out = buffers_.logits,
                                            .rows = samples,
                                            .cols = spec_.vocab_size,
                                            .depth = spec_.hidden_size,
                                            .x_stride = spec_.hidden_size,
                                            .out_stride = logits_stride_,
                                            .float_out = true},
                                           stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_sample({.header = header(),
                                              .num_samples = samples,
                                              .vocab_size = spec_.vocab_size,
                                              .logits = buffers_.logits,
                                              .logits_stride = logits_stride_,
                                              .specs = image_.device_samples(),
                                              .tokens = buffers_.tokens,
                                              .workspace = buffers_.sampling_workspace},
                                             stream));
  return ok_status();
}

}  // namespace nanocp::runner
