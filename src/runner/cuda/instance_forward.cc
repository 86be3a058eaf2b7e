#include "runner/cuda/instance_forward.h"

#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/phase_stamp.h"
#include "backend/cuda/router.h"
#include "backend/cuda/row_ops.h"
#include "backend/cuda/sampling.h"
#include "model/expert_placement.h"
#include "ops/rotary.h"

namespace nanocp::runner {

using cuda::cuda_status;
using engine::Phase;

namespace {

constexpr int64_t kBf16Bytes = 2;
constexpr int64_t kMarksPerLayer = 10;

constexpr int64_t kNumCounters = 4096;  // kernels that count per source take a run of them

}  // namespace

Status InstanceForward::check_model(const model::ModelSpec& spec) {
  const model::AttentionSpec& a = spec.attention;
  if (spec.attention.is_mla()) {
    if (a.kv_lora_rank == 512 && a.qk_rope_head_dim == 64) return ok_status();
    return unsupported(
        "the GPU kernels of latent attention cover a latent of 512 + 64 values, not " +
        std::to_string(a.kv_lora_rank) + " + " + std::to_string(a.qk_rope_head_dim) +
        ": use --device cpu");
  }
  if (a.head_dim != 64 && a.head_dim != 128) {
    return unsupported("the GPU attention kernels cover head sizes 64 and 128, not " +
                       std::to_string(a.head_dim) + ": use --device cpu");
  }
  if (a.num_heads / a.num_kv_heads > 16) {
    return unsupported("the GPU attention kernels cover up to 16 query heads per KV head, not " +
                       std::to_string(a.num_heads / a.num_kv_heads) + ": use --device cpu");
  }
  return ok_status();
}

InstanceForward::InstanceForward(const model::ModelSpec& spec, const DeviceWeights& weights,
                                 const StepImage& image, const cuda::ExchangeView& exchange,
                                 const ForwardOptions& options)
    : spec_(spec),
      weights_(weights),
      image_(image),
      exchange_(exchange),
      options_(options),
      arena_("the activations of instance " + std::to_string(options.instance)) {
  for (const model::LayerSpec& layer : spec.layers) {
    moe_index_.push_back(num_moe_layers_);
    if (layer.is_moe) ++num_moe_layers_;
  }
}

Result<std::unique_ptr<InstanceForward>> InstanceForward::create(const model::ModelSpec& spec,
                                                                 const DeviceWeights& weights,
                                                                 const StepImage& image,
                                                                 const cuda::ExchangeView& exchange,
                                                                 const ForwardOptions& options) {
  std::unique_ptr<InstanceForward> forward(
      new InstanceForward(spec, weights, image, exchange, options));
  NANOCP_RETURN_IF_ERROR(forward->allocate());
  return forward;
}

InstanceForward::~InstanceForward() {
  if (fork_ != nullptr) static_cast<void>(cudaEventDestroy(fork_));
  if (join_ != nullptr) static_cast<void>(cudaEventDestroy(join_));
  if (side_stream_ != nullptr) static_cast<void>(cudaStreamDestroy(side_stream_));
}

Status InstanceForward::allocate() {
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaMemcpy(&heap_, exchange_.base + options_.instance, sizeof(heap_), cudaMemcpyDeviceToHost),
      "address of the exchange heap"));
  x_ = heap_ + exchange_.offsets.dispatch_x +
       int64_t{options_.instance} * options_.max_rows * spec_.hidden_size * kBf16Bytes;
  NANOCP_ASSIGN_OR_RETURN(products_, cuda::DenseProducts::create());
  NANOCP_ASSIGN_OR_RETURN(side_products_, cuda::DenseProducts::create());
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaStreamCreateWithFlags(&side_stream_, cudaStreamNonBlocking), "side stream"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaEventCreateWithFlags(&fork_, cudaEventDisableTiming), "fork event"));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaEventCreateWithFlags(&join_, cudaEventDisableTiming), "join event"));
  const std::vector<float> frequencies = ops::rotary_frequencies(spec_.rotary);
  NANOCP_ASSIGN_OR_RETURN(frequencies_,
                          arena_.take<float>(static_cast<int64_t>(frequencies.size())));
  NANOCP_RETURN_IF_ERROR(
      cuda_status(cudaMemcpy(frequencies_, frequencies.data(), frequencies.size() * sizeof(float),
                             cudaMemcpyHostToDevice),
                  "rotary frequencies"));
  NANOCP_ASSIGN_OR_RETURN(readout_, arena_.take<uint8_t>(static_cast<int64_t>(
                                        stamps_offset() + num_stamps_max() * sizeof(uint64_t))));
  buffers_.tokens = reinterpret_cast<int32_t*>(readout_);
  stamps_ = reinterpret_cast<uint64_t*>(readout_ + stamps_offset());
  NANOCP_RETURN_IF_ERROR(allocate_attention());
  return allocate_mlp();
}

Status InstanceForward::allocate_attention() {
  const model::AttentionSpec& a = spec_.attention;
  const int64_t rows = options_.max_rows;
  const int64_t all_rows = (1 + options_.num_instances) * rows;
  const int64_t partial = int64_t{a.num_heads} * a.cache_v_dim();
  NANOCP_ASSIGN_OR_RETURN(buffers_.residual, arena_.take<float>(rows * spec_.hidden_size));
  NANOCP_ASSIGN_OR_RETURN(buffers_.qkv, arena_.take<uint16_t>(rows * weights_.layers[0].qkv.rows));
  if (spec_.attention.is_mla()) {
    const int64_t q_width = int64_t{a.num_heads} * (a.qk_nope_head_dim + a.qk_rope_head_dim);
    NANOCP_ASSIGN_OR_RETURN(buffers_.q_latent, arena_.take<uint16_t>(rows * a.q_lora_rank));
    NANOCP_ASSIGN_OR_RETURN(buffers_.q_full, arena_.take<uint16_t>(rows * q_width));
    NANOCP_ASSIGN_OR_RETURN(buffers_.values,
                            arena_.take<uint16_t>(rows * a.num_heads * a.v_head_dim));
  }
  NANOCP_ASSIGN_OR_RETURN(buffers_.attention_out, arena_.take<float>(all_rows * partial));
  NANOCP_ASSIGN_OR_RETURN(buffers_.attention_lse, arena_.take<float>(all_rows * a.num_heads));
  NANOCP_ASSIGN_OR_RETURN(buffers_.merged, arena_.take<uint16_t>(rows * partial));
  NANOCP_ASSIGN_OR_RETURN(buffers_.attention_sum, arena_.take<uint16_t>(rows * spec_.hidden_size));
  NANOCP_ASSIGN_OR_RETURN(buffers_.counters, arena_.take<uint32_t>(kNumCounters));
  attention_workspaces_.assign(spec_.layers.size(), nullptr);
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const int32_t window = spec_.layers[i].sliding_window;
    const auto known = std::find(windows_.begin(), windows_.end(), window);
    if (known == windows_.end()) {
      size_t bytes = 0;
      const auto layer = static_cast<int32_t>(i);
      if (spec_.attention.is_mla()) {
        NANOCP_ASSIGN_OR_RETURN(bytes, cuda::mla_decode_workspace_bytes(mla_args(layer).config));
      } else {
        NANOCP_ASSIGN_OR_RETURN(bytes,
                                cuda::attention_decode_workspace_bytes(decode_args(layer).config));
      }
      NANOCP_ASSIGN_OR_RETURN(void* workspace, arena_.take<uint8_t>(static_cast<int64_t>(bytes)));
      windows_.push_back(window);
      window_workspaces_.push_back(workspace);
    }
    const auto at = std::find(windows_.begin(), windows_.end(), window) - windows_.begin();
    attention_workspaces_[i] = window_workspaces_[static_cast<size_t>(at)];
  }
  if (!spec_.attention.is_mla()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const size_t bytes,
                          cuda::mla_prefill_workspace_bytes(mla_prefill_args(0).config));
  NANOCP_ASSIGN_OR_RETURN(prefill_workspace_, arena_.take<uint8_t>(static_cast<int64_t>(bytes)));
  return ok_status();
}

Status InstanceForward::allocate_mlp() {
  const int64_t rows = options_.max_rows;
  const int64_t hidden = spec_.hidden_size;
  const model::MoeSpec& moe = spec_.moe;
  const int64_t intermediate =
      std::max({int64_t{spec_.dense_intermediate_size}, int64_t{moe.shared_intermediate_size}});
  const model::ExpertPlacement placement(moe.num_experts, options_.num_instances);
  while (expert_begin_ < moe.num_experts && placement.owner(expert_begin_) != options_.instance) {
    ++expert_begin_;
  }
  num_local_experts_ = static_cast<int32_t>(
      std::count(placement.owners().begin(), placement.owners().end(), options_.instance));
  // The lists are the same for all layers, whatever the formats of their experts.
  int32_t fewest_rows = cuda::expert_tile_rows(
      {.hidden = spec_.hidden_size, .intermediate = moe.expert_intermediate_size});
  for (int32_t i = 0; i < spec_.num_layers; ++i) {
    if (spec_.layers[static_cast<size_t>(i)].is_moe) {
      fewest_rows = std::min(fewest_rows, tile_rows(i));
    }
  }
  const cuda::ExpertPlanSizes sizes =
      cuda::expert_plan_sizes(exchange_, num_local_experts_, fewest_rows);
  const int64_t assignments = sizes.max_assignments;
  NANOCP_ASSIGN_OR_RETURN(lists_.row_of, arena_.take<int32_t>(assignments));
  NANOCP_ASSIGN_OR_RETURN(lists_.assignment_of, arena_.take<int32_t>(assignments));
  NANOCP_ASSIGN_OR_RETURN(lists_.tiles, arena_.take<cuda::TokenTile>(sizes.max_tiles));
  NANOCP_ASSIGN_OR_RETURN(lists_.num_tiles, arena_.take<int32_t>(1));
  NANOCP_ASSIGN_OR_RETURN(buffers_.gate_up, arena_.take<uint16_t>(rows * 2 * intermediate));
  NANOCP_ASSIGN_OR_RETURN(buffers_.activated, arena_.take<uint16_t>(rows * intermediate));
  NANOCP_ASSIGN_OR_RETURN(buffers_.mlp_sum, arena_.take<uint16_t>(rows * hidden));
  NANOCP_ASSIGN_OR_RETURN(buffers_.router_logits, arena_.take<float>(rows * moe.num_experts));
  NANOCP_ASSIGN_OR_RETURN(buffers_.expert_hidden,
                          arena_.take<uint16_t>(assignments * moe.expert_intermediate_size));
  NANOCP_ASSIGN_OR_RETURN(buffers_.expert_out, arena_.take<uint16_t>(assignments * hidden));
  NANOCP_ASSIGN_OR_RETURN(buffers_.sampled, arena_.take<uint16_t>(rows * hidden));
  logits_stride_ = (int64_t{spec_.vocab_size} + 7) / 8 * 8;
  NANOCP_ASSIGN_OR_RETURN(buffers_.logits, arena_.take<float>(rows * logits_stride_));
  const size_t bytes = cuda::sampling_workspace_bytes(options_.max_rows);
  NANOCP_ASSIGN_OR_RETURN(buffers_.sampling_workspace,
                          arena_.take<uint8_t>(static_cast<int64_t>(bytes)));
  return ok_status();
}

cuda::ExchangeEpoch InstanceForward::shard_epoch(int32_t layer) const {
  return {&header()->step, spec_.num_layers, layer};
}

cuda::ExchangeEpoch InstanceForward::expert_epoch(int32_t layer) const {
  return {&header()->step, num_moe_layers_, moe_index_[static_cast<size_t>(layer)]};
}

Status InstanceForward::carry(cuda::WaitPurpose purpose, int32_t layer, cudaStream_t stream) {
  if (options_.link == nullptr) return ok_status();
  const bool is_shard =
      purpose == cuda::WaitPurpose::kQuery || purpose == cuda::WaitPurpose::kPartial;
  return options_.link->carry(
      purpose, image_.epoch_number(is_shard ? shard_epoch(layer) : expert_epoch(layer)),
      cache_rows(layer), stream);
}

const float* InstanceForward::next_norm(int32_t layer) const {
  return layer + 1 < spec_.num_layers ? weights_.layers[static_cast<size_t>(layer) + 1].input_norm
                                      : weights_.final_norm;
}

Status InstanceForward::enqueue(const StepShape& shape, cudaStream_t stream) {
  marks_.clear();
  exchanges_.clear();
  NANOCP_RETURN_IF_ERROR(mark_step(Phase::kAttention, stream));
  NANOCP_RETURN_IF_ERROR(schedule_attention(shape, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_embed_norm({.header = header(),
                                                  .rows = static_cast<int32_t>(shape.rows),
                                                  .hidden = spec_.hidden_size,
                                                  .vocab_size = spec_.vocab_size,
                                                  .token_ids = image_.device().token_ids,
                                                  .sampled = buffers_.tokens,
                                                  .embedding = weights_.embedding,
                                                  .norm_weight = weights_.layers[0].input_norm,
                                                  .eps = spec_.rms_norm_eps,
                                                  .residual = buffers_.residual,
                                                  .x = x_,
                                                  .x_stride = spec_.hidden_size},
                                                 stream));
  for (int32_t layer = 0; layer < spec_.num_layers; ++layer) {
    NANOCP_RETURN_IF_ERROR(run_layer(layer, shape, stream));
  }
  NANOCP_RETURN_IF_ERROR(mark(Phase::kHead, -1, stream));
  NANOCP_RETURN_IF_ERROR(run_head(shape, stream));
  return mark_step(Phase::kHead, stream);
}

Status InstanceForward::mark(Phase phase, int32_t layer, cudaStream_t stream) {
  return options_.profile ? stamp(phase, layer, stream) : ok_status();
}

Status InstanceForward::mark_step(Phase phase, cudaStream_t stream) {
  return options_.profile || options_.time_steps ? stamp(phase, -1, stream) : ok_status();
}

Status InstanceForward::stamp(Phase phase, int32_t layer, cudaStream_t stream) {
  marks_.push_back({phase, layer});
  return cuda::launch_phase_stamp(stamps_ + marks_.size() - 1, stream);
}

size_t InstanceForward::num_stamps_max() const {
  return static_cast<size_t>(spec_.num_layers * kMarksPerLayer + 4);
}

size_t InstanceForward::stamps_offset() const {
  return (static_cast<size_t>(options_.max_rows) * sizeof(int32_t) + 255) / 256 * 256;
}

size_t InstanceForward::readout_bytes() const {
  return stamps_offset() + marks_.size() * sizeof(uint64_t);
}

// A mark's phase lasts until the next mark.
std::vector<engine::PhaseSpan> InstanceForward::spans_of(const uint64_t* stamps) const {
  std::vector<engine::PhaseSpan> spans;
  if (!options_.profile) return spans;
  for (size_t i = 0; i + 1 < marks_.size(); ++i) {
    spans.push_back({marks_[i].phase, marks_[i].layer,
                     static_cast<double>(stamps[i] - stamps[0]) / 1e3,
                     static_cast<double>(stamps[i + 1] - stamps[i]) / 1e3});
  }
  return spans;
}

// Lengths are the same in all layers of one window, so the split of the work is too.
Status InstanceForward::schedule_attention(const StepShape& shape, cudaStream_t stream) {
  for (size_t i = 0; i < windows_.size(); ++i) {
    size_t layer = 0;
    while (spec_.layers[layer].sliding_window != windows_[i]) ++layer;
    const auto at = static_cast<int32_t>(layer);
    NANOCP_RETURN_IF_ERROR(spec_.attention.is_mla()
                               ? cuda::launch_mla_schedule(mla_args(at), stream)
                               : cuda::launch_attention_schedule(decode_args(at), stream));
  }
  if (!spec_.attention.is_mla() || !shape.has_prefill) return ok_status();
  return cuda::launch_mla_prefill_schedule(mla_prefill_args(0), stream);
}

Status InstanceForward::run_layer(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  NANOCP_RETURN_IF_ERROR(mark(Phase::kDense, layer, stream));
  NANOCP_RETURN_IF_ERROR(product(w.qkv, x_, buffers_.qkv, shape.rows, false, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kRoute, layer, stream));
  begin_exchange(ExchangeMark::Kind::kShard, layer);
  NANOCP_RETURN_IF_ERROR(spec_.attention.is_mla() ? prepare_mla(layer, shape, stream)
                                                  : prepare_gqa(layer, shape, stream));
  NANOCP_RETURN_IF_ERROR(carry(cuda::WaitPurpose::kQuery, layer, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kAttention, layer, stream));
  NANOCP_RETURN_IF_ERROR(attend(layer, shape, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kMerge, layer, stream));
  NANOCP_RETURN_IF_ERROR(finish_attention(layer, shape, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_add_norm({.header = header(),
                                                .rows = static_cast<int32_t>(shape.rows),
                                                .hidden = spec_.hidden_size,
                                                .delta = buffers_.attention_sum,
                                                .delta_stride = spec_.hidden_size,
                                                .bias = w.o.bias,
                                                .norm_weight = w.post_attention_norm,
                                                .eps = spec_.rms_norm_eps,
                                                .residual = buffers_.residual,
                                                .x = x_,
                                                .x_stride = spec_.hidden_size},
                                               stream));
  if (spec_.layers[static_cast<size_t>(layer)].is_moe) return run_moe(layer, shape, stream);
  return run_dense_mlp(layer, shape, stream);
}

}  // namespace nanocp::runner
