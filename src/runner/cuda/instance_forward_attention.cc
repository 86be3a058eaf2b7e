// The attention of a layer: see instance_forward.h.
#include "runner/cuda/instance_forward.h"

namespace nanocp::runner {

cuda::CacheLayout InstanceForward::cache_layout(int32_t layer) const {
  const model::AttentionSpec& a = spec_.attention;
  cuda::CacheLayout cache;
  cache.block_size = options_.block_size;
  cache.type = options_.kv_format == tensor::KvFormat::kFp8 ? cuda::CacheType::kE4m3
                                                            : cuda::CacheType::kBf16;
  cache.head_stride = int64_t{options_.block_size} * a.cache_k_dim();
  cache.block_stride = a.cache_num_kv_heads() * options_.block_size *
                       tensor::kv_token_values(options_.kv_format, a.cache_k_dim());
  const int64_t part_bytes =
      options_.num_blocks * cache.block_stride * tensor::kv_value_bytes(options_.kv_format);
  const int64_t parts = spec_.attention.is_mla() ? 1 : 2;
  cache.k_offset = exchange_.offsets.kv_cache + layer * parts * part_bytes;
  cache.v_offset = cache.k_offset + (parts - 1) * part_bytes;
  return cache;
}

cuda::CacheRows InstanceForward::cache_rows(int32_t layer) const {
  return {.layout = cache_layout(layer),
          .num_heads = spec_.attention.cache_num_kv_heads(),
          .token_values = spec_.attention.cache_k_dim(),
          .has_values = !spec_.attention.is_mla()};
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
                 .max_rows = options_.max_rows * options_.num_instances,
                 .cache_type = cache.type};
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
  args.exchange = exchange_;
  args.epoch = shard_epoch(layer);
  return args;
}

// Rows of other instances come last and are waited for inside the kernels.
Status InstanceForward::attend(int32_t layer, const StepShape& shape, cudaStream_t stream) {
  if (spec_.attention.is_mla()) {
    NANOCP_RETURN_IF_ERROR(cuda::launch_mla_decode(mla_args(layer), stream));
    if (!shape.has_prefill) return ok_status();
    return cuda::launch_mla_prefill(mla_prefill_args(layer), stream);
  }
  NANOCP_RETURN_IF_ERROR(cuda::launch_attention_decode(decode_args(layer), stream));
  if (!shape.has_prefill) return ok_status();
  return cuda::launch_attention_prefill(prefill_args(layer), stream);
}

cuda::AttentionPrefillArgs InstanceForward::prefill_args(int32_t layer) const {
  const cuda::AttentionDecodeArgs decode = decode_args(layer);
  cuda::AttentionPrefillArgs args = {};
  args.config = decode.config;
  args.items = image_.prefill_items();
  args.num_items = image_.num_prefill_items();
  args.blocks = decode.blocks;
  args.block_idx = decode.block_idx;
  args.q = decode.q;
  args.k = decode.k;
  args.v = decode.v;
  args.block_stride = decode.block_stride;
  args.head_stride = decode.head_stride;
  args.out = decode.out;
  args.lse = decode.lse;
  args.exchange = decode.exchange;
  args.epoch = decode.epoch;
  return args;
}

cuda::MlaDecodeArgs InstanceForward::mla_args(int32_t layer) const {
  const cuda::CacheLayout cache = cache_layout(layer);
  cuda::MlaDecodeArgs args = {};
  args.config = {.num_heads = spec_.attention.num_heads,
                 .block_size = options_.block_size,
                 .softmax_scale = spec_.attention.softmax_scale,
                 .max_rows = options_.max_rows * options_.num_instances,
                 .cache_type = cache.type};
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
  args.exchange = exchange_;
  args.epoch = shard_epoch(layer);
  return args;
}

cuda::MlaPrefillArgs InstanceForward::mla_prefill_args(int32_t layer) const {
  const cuda::MlaDecodeArgs decode = mla_args(layer);
  cuda::MlaPrefillArgs args = {};
  args.config = {.num_heads = decode.config.num_heads,
                 .block_size = decode.config.block_size,
                 .softmax_scale = decode.config.softmax_scale,
                 .max_rows = decode.config.max_rows,
                 .cache_type = decode.config.cache_type};
  args.items = image_.prefill_items();
  args.num_items = image_.num_prefill_items();
  args.blocks = decode.blocks;
  args.block_idx = decode.block_idx;
  args.q = decode.q;
  args.q_rows = int64_t{1 + options_.num_instances} * options_.max_rows;
  args.cache = decode.cache;
  args.block_stride = decode.block_stride;
  args.out = decode.out;
  args.lse = decode.lse;
  args.workspace = prefill_workspace_;
  args.exchange = exchange_;
  args.epoch = shard_epoch(layer);
  return args;
}

// attention_sum := the output projection of the merged parts.
Status InstanceForward::finish_attention(int32_t layer, const StepShape& shape,
                                         cudaStream_t stream) {
  const model::AttentionSpec& a = spec_.attention;
  const DeviceLayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  NANOCP_RETURN_IF_ERROR(
      launch_exchange(cuda::launch_finish_attention,
                      cuda::FinishAttentionArgs{.step = image_.device(),
                                                .exchange = exchange_,
                                                .epoch = shard_epoch(layer),
                                                .rows = static_cast<int32_t>(shape.rows),
                                                .out = buffers_.attention_out,
                                                .lse = buffers_.attention_lse,
                                                .sinks = w.sinks,
                                                .merged = buffers_.merged,
                                                .counter = buffers_.counters + kReturnCounter},
                      cuda::WaitPurpose::kPartial, layer, stream));
  NANOCP_RETURN_IF_ERROR(mark(engine::Phase::kDense, layer, stream));
  const uint16_t* values = buffers_.merged;
  if (spec_.attention.is_mla()) {
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

}  // namespace nanocp::runner
