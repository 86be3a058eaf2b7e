#include "runner/cuda/instance_forward.h"

#include <algorithm>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/phase_stamp.h"
#include "backend/cuda/row_ops.h"
#include "backend/cuda/sampling.h"
#include "model/expert_placement.h"
#include "ops/rotary.h"

namespace nanocp::runner {

using cuda::cuda_status;
using engine::Phase;
using model::AttentionKind;

namespace {

constexpr int64_t kBf16Bytes = 2;
constexpr int64_t kMarksPerLayer = 10;

enum Counter : int { kPrepareCounter, kReturnCounter, kDispatchCounter, kCombineCounter };
constexpr int64_t kNumCounters = 4096;  // kernels that count per source take a run of them

bool is_mla(const model::ModelSpec& spec) {
  return spec.attention.kind == AttentionKind::kMla;
}

}  // namespace

Status InstanceForward::check_model(const model::ModelSpec& spec) {
  const model::AttentionSpec& a = spec.attention;
  if (is_mla(spec)) {
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
  NANOCP_ASSIGN_OR_RETURN(stamps_, arena_.take<uint64_t>(spec_.num_layers * kMarksPerLayer + 4));
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
  if (is_mla(spec_)) {
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
      if (is_mla(spec_)) {
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
  const cuda::ExpertPlanSizes sizes =
      cuda::expert_plan_sizes(exchange_, num_local_experts_, tile_rows());
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
  NANOCP_ASSIGN_OR_RETURN(buffers_.tokens, arena_.take<int32_t>(rows));
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

const float* InstanceForward::next_norm(int32_t layer) const {
  return layer + 1 < spec_.num_layers ? weights_.layers[static_cast<size_t>(layer) + 1].input_norm
                                      : weights_.final_norm;
}

Status InstanceForward::enqueue(const StepShape& shape, cudaStream_t stream) {
  marks_.clear();
  exchanges_.clear();
  NANOCP_RETURN_IF_ERROR(mark(Phase::kAttention, -1, stream));
  NANOCP_RETURN_IF_ERROR(schedule_attention(stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_embed_norm({.header = header(),
                                                  .rows = static_cast<int32_t>(shape.rows),
                                                  .hidden = spec_.hidden_size,
                                                  .vocab_size = spec_.vocab_size,
                                                  .token_ids = image_.device().token_ids,
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
  return mark(Phase::kHead, -1, stream);
}

Status InstanceForward::mark(Phase phase, int32_t layer, cudaStream_t stream) {
  if (!options_.profile) return ok_status();
  marks_.push_back({phase, layer});
  return cuda::launch_phase_stamp(stamps_ + marks_.size() - 1, stream);
}

// A mark's phase lasts until the next mark.
Result<std::vector<engine::PhaseSpan>> InstanceForward::read_spans() const {
  std::vector<engine::PhaseSpan> spans;
  if (marks_.empty()) return spans;
  std::vector<uint64_t> times(marks_.size());
  NANOCP_RETURN_IF_ERROR(cuda_status(
      cudaMemcpy(times.data(), stamps_, times.size() * sizeof(uint64_t), cudaMemcpyDeviceToHost),
      "copy of phase stamps"));
  for (size_t i = 0; i + 1 < marks_.size(); ++i) {
    spans.push_back({marks_[i].phase, marks_[i].layer,
                     static_cast<double>(times[i] - times[0]) / 1e3,
                     static_cast<double>(times[i + 1] - times[i]) / 1e3});
  }
  return spans;
}

// Lengths are the same in all layers of one window, so the split of the work is too.
Status InstanceForward::schedule_attention(cudaStream_t stream) {
  for (size_t i = 0; i < windows_.size(); ++i) {
    size_t layer = 0;
    while (spec_.layers[layer].sliding_window != windows_[i]) ++layer;
    const auto at = static_cast<int32_t>(layer);
    NANOCP_RETURN_IF_ERROR(is_mla(spec_)
                               ? cuda::launch_mla_schedule(mla_args(at), stream)
                               : cuda::launch_attention_schedule(decode_args(at), stream));
  }
  return ok_status();
}

Status InstanceForward::run_layer(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  NANOCP_RETURN_IF_ERROR(mark(Phase::kDense, layer, stream));
  NANOCP_RETURN_IF_ERROR(product(w.qkv, x_, buffers_.qkv, shape.rows, false, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kRoute, layer, stream));
  begin_exchange(ExchangeMark::Kind::kShard, layer);
  NANOCP_RETURN_IF_ERROR(is_mla(spec_) ? prepare_mla(layer, shape, stream)
                                       : prepare_gqa(layer, shape, stream));
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

cuda::CacheLayout InstanceForward::cache_layout(int32_t layer) const {
  const model::AttentionSpec& a = spec_.attention;
  cuda::CacheLayout cache;
  cache.block_size = options_.block_size;
  cache.head_stride = int64_t{options_.block_size} * a.cache_k_dim();
  cache.block_stride = cache.head_stride * a.cache_num_kv_heads();
  const int64_t part_bytes = options_.num_blocks * cache.block_stride * kBf16Bytes;
  const int64_t parts = is_mla(spec_) ? 1 : 2;
  cache.k_offset = exchange_.offsets.kv_cache + layer * parts * part_bytes;
  cache.v_offset = cache.k_offset + (parts - 1) * part_bytes;
  return cache;
}

Status InstanceForward::prepare_gqa(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const model::AttentionSpec& a = spec_.attention;
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  return cuda::launch_prepare_gqa({.step = image_.device(),
                                   .exchange = exchange_,
                                   .epoch = shard_epoch(layer),
                                   .rows = static_cast<int32_t>(shape.rows),
                                   .num_heads = a.num_heads,
                                   .num_kv_heads = a.num_kv_heads,
                                   .head_dim = a.head_dim,
                                   .qkv = buffers_.qkv,
                                   .qkv_stride = w.qkv.rows,
                                   .bias = w.qkv.bias,
                                   .q_norm = w.q_norm,
                                   .k_norm = w.k_norm,
                                   .norm_eps = spec_.rms_norm_eps,
                                   .rotary = rotary_view(),
                                   .cache = cache_layout(layer),
                                   .counter = buffers_.counters + kPrepareCounter},
                                  stream);
}

cuda::RotaryView InstanceForward::rotary_view() const {
  return {.frequencies = frequencies_,
          .rotary_dim = spec_.rotary.rotary_dim,
          .interleaved = spec_.rotary.interleaved,
          .cos_sin_scale = static_cast<float>(spec_.rotary.cos_sin_scale)};
}

Status InstanceForward::prepare_mla(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const model::AttentionSpec& a = spec_.attention;
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const auto rows = static_cast<int32_t>(shape.rows);
  const bool has_latent = a.q_lora_rank > 0;
  const int32_t kv_column = static_cast<int32_t>(w.qkv.rows) - a.kv_lora_rank - a.qk_rope_head_dim;
  NANOCP_RETURN_IF_ERROR(cuda::launch_prepare_mla_latent({.step = image_.device(),
                                                          .exchange = exchange_,
                                                          .rows = rows,
                                                          .latents = buffers_.qkv,
                                                          .row_stride = w.qkv.rows,
                                                          .kv_column = kv_column,
                                                          .q_column = 0,
                                                          .kv_rank = a.kv_lora_rank,
                                                          .rope_dim = a.qk_rope_head_dim,
                                                          .q_rank = a.q_lora_rank,
                                                          .kv_norm = w.k_norm,
                                                          .q_norm = w.q_norm,
                                                          .norm_eps = spec_.rms_norm_eps,
                                                          .rotary = rotary_view(),
                                                          .cache = cache_layout(layer),
                                                          .q_latent = buffers_.q_latent},
                                                         stream));
  const uint16_t* q = buffers_.qkv;
  int64_t q_stride = w.qkv.rows;
  if (has_latent) {
    NANOCP_RETURN_IF_ERROR(
        product(w.q_b, buffers_.q_latent, buffers_.q_full, shape.rows, false, stream));
    q = buffers_.q_full;
    q_stride = w.q_b.rows;
  }
  NANOCP_RETURN_IF_ERROR(absorb_queries(w, q, q_stride, shape, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_prepare_mla_query({.step = image_.device(),
                                                         .exchange = exchange_,
                                                         .rows = rows,
                                                         .num_heads = a.num_heads,
                                                         .nope_dim = a.qk_nope_head_dim,
                                                         .rope_dim = a.qk_rope_head_dim,
                                                         .kv_rank = a.kv_lora_rank,
                                                         .q = q,
                                                         .q_stride = q_stride,
                                                         .rotary = rotary_view()},
                                                        stream));
  if (options_.num_instances == 1) return ok_status();
  return cuda::launch_send_queries({.step = image_.device(),
                                    .exchange = exchange_,
                                    .epoch = shard_epoch(layer),
                                    .rows = rows,
                                    .counter = buffers_.counters + kPrepareCounter},
                                   stream);
}

// Moves the key up-projection to the query side, into the query region of the exchange.
Status InstanceForward::absorb_queries(const DeviceLayerWeights& w, const uint16_t* q,
                                       int64_t q_stride, const StepShape& shape,
                                       cudaStream_t stream) {
  const model::AttentionSpec& a = spec_.attention;
  return products_->launch({.x = q,
                            .w = w.k_up,
                            .out = heap_ + exchange_.offsets.query,
                            .rows = shape.rows,
                            .cols = a.kv_lora_rank,
                            .depth = a.qk_nope_head_dim,
                            .x_stride = q_stride,
                            .out_stride = exchange_.query_values,
                            .num_batches = a.num_heads,
                            .x_batch_stride = a.qk_nope_head_dim + a.qk_rope_head_dim,
                            .w_batch_stride = int64_t{a.kv_lora_rank} * a.qk_nope_head_dim,
                            .out_batch_stride = a.kv_lora_rank + a.qk_rope_head_dim},
                           stream);
}

cuda::AttentionDecodeArgs InstanceForward::decode_args(int32_t layer) const {
  const model::AttentionSpec& a = spec_.attention;
  const cuda::CacheLayout cache = cache_layout(layer);
  cuda::AttentionDecodeArgs args = {};
  args.config = {.num_heads = a.num_heads,
                 .num_kv_heads = a.num_kv_heads,
                 .head_dim = a.head_dim,
                 .block_size = options_.block_size,
                 .sliding_window = spec_.layers[static_cast<size_t>(layer)].sliding_window,
                 .softmax_scale = a.softmax_scale,
                 .max_rows = options_.max_rows * options_.num_instances};
  args.rows = image_.device().attention_rows;
  args.num_rows = image_.device().num_attention_rows;
  args.blocks = image_.device().blocks;
  args.block_idx = image_.device().block_idx;
  args.q = heap_ + exchange_.offsets.query;
  args.k = heap_ + cache.k_offset;
  args.v = heap_ + cache.v_offset;
  args.block_stride = cache.block_stride;
  args.head_stride = cache.head_stride;
  args.out = buffers_.attention_out;
  args.lse = buffers_.attention_lse;
  args.workspace = attention_workspaces_[static_cast<size_t>(layer)];
  return args;
}

Status InstanceForward::attend(int32_t layer, const StepShape& /*shape*/, cudaStream_t stream) {
  if (options_.num_instances > 1) {
    NANOCP_RETURN_IF_ERROR(cuda::launch_wait_queries(
        {.step = image_.device(), .exchange = exchange_, .epoch = shard_epoch(layer)}, stream));
  }
  if (is_mla(spec_)) return cuda::launch_mla_decode(mla_args(layer), stream);
  return cuda::launch_attention_decode(decode_args(layer), stream);
}

cuda::MlaDecodeArgs InstanceForward::mla_args(int32_t layer) const {
  const cuda::CacheLayout cache = cache_layout(layer);
  cuda::MlaDecodeArgs args = {};
  args.config = {.num_heads = spec_.attention.num_heads,
                 .block_size = options_.block_size,
                 .softmax_scale = spec_.attention.softmax_scale,
                 .max_rows = options_.max_rows * options_.num_instances};
  args.rows = image_.device().attention_rows;
  args.num_rows = image_.device().num_attention_rows;
  args.blocks = image_.device().blocks;
  args.block_idx = image_.device().block_idx;
  args.q = heap_ + exchange_.offsets.query;
  args.cache = heap_ + cache.k_offset;
  args.block_stride = cache.block_stride;
  args.out = buffers_.attention_out;
  args.lse = buffers_.attention_lse;
  args.workspace = attention_workspaces_[static_cast<size_t>(layer)];
  return args;
}

// attention_sum := the output projection of the merged parts.
Status InstanceForward::finish_attention(int32_t layer, const StepShape& shape,
                                         cudaStream_t stream) {
  const model::AttentionSpec& a = spec_.attention;
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  NANOCP_RETURN_IF_ERROR(
      cuda::launch_finish_attention({.step = image_.device(),
                                     .exchange = exchange_,
                                     .epoch = shard_epoch(layer),
                                     .rows = static_cast<int32_t>(shape.rows),
                                     .out = buffers_.attention_out,
                                     .lse = buffers_.attention_lse,
                                     .sinks = w.sinks,
                                     .merged = buffers_.merged,
                                     .counter = buffers_.counters + kReturnCounter},
                                    stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kDense, layer, stream));
  const uint16_t* values = buffers_.merged;
  if (is_mla(spec_)) {
    NANOCP_RETURN_IF_ERROR(
        products_->launch({.x = buffers_.merged,
                           .w = w.v_up,
                           .out = buffers_.values,
                           .rows = shape.rows,
                           .cols = a.v_head_dim,
                           .depth = a.kv_lora_rank,
                           .x_stride = exchange_.partial_values,
                           .out_stride = int64_t{a.num_heads} * a.v_head_dim,
                           .num_batches = a.num_heads,
                           .x_batch_stride = a.kv_lora_rank,
                           .w_batch_stride = int64_t{a.kv_lora_rank} * a.v_head_dim,
                           .out_batch_stride = a.v_head_dim},
                          stream));
    values = buffers_.values;
  }
  return product(w.o, values, buffers_.attention_sum, shape.rows, false, stream);
}

int32_t InstanceForward::tile_rows() const {
  return cuda::expert_tile_rows(
      {.hidden = spec_.hidden_size, .intermediate = spec_.moe.expert_intermediate_size});
}

Status InstanceForward::run_moe(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  const bool has_shared = w.shared.down.weight != nullptr;
  NANOCP_RETURN_IF_ERROR(product(w.router, x_, buffers_.router_logits, shape.rows, true, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kDispatch, layer, stream));
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
  if (has_shared) NANOCP_RETURN_IF_ERROR(fork_shared(w.shared, shape, stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kIdleWait, layer, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_expert_plan({.exchange = exchange_,
                                                   .epoch = expert_epoch(layer),
                                                   .expert_begin = expert_begin_,
                                                   .num_experts = num_local_experts_,
                                                   .tile_rows = tile_rows(),
                                                   .lists = lists_},
                                                  stream));
  NANOCP_RETURN_IF_ERROR(mark(Phase::kExperts, layer, stream));
  NANOCP_RETURN_IF_ERROR(cuda::launch_expert_mlp({.weights = w.experts,
                                                  .activation = spec_.moe.activation,
                                                  .lists = lists_,
                                                  .x = heap_ + exchange_.offsets.dispatch_x,
                                                  .h = buffers_.expert_hidden,
                                                  .y = buffers_.expert_out},
                                                 stream));
  if (has_shared) {
    NANOCP_RETURN_IF_ERROR(
        cuda_status(cudaStreamWaitEvent(stream, join_, 0), "join of the shared experts"));
  }
  NANOCP_RETURN_IF_ERROR(mark(Phase::kCombine, layer, stream));
  return cuda::launch_combine({.step = image_.device(),
                               .exchange = exchange_,
                               .epoch = expert_epoch(layer),
                               .num_experts = spec_.moe.num_experts,
                               .y = buffers_.expert_out,
                               .assignment_of = lists_.assignment_of,
                               .shared = has_shared ? buffers_.mlp_sum : nullptr,
                               .norm_weight = next_norm(layer),
                               .eps = spec_.rms_norm_eps,
                               .residual = buffers_.residual,
                               .x = x_,
                               .counter = buffers_.counters + kCombineCounter},
                              stream);
}

}  // namespace nanocp::runner
