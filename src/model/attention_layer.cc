#include "model/attention_layer.h"

#include <algorithm>

#include "ops/linear.h"
#include "ops/norm.h"

namespace nanocp::model {
namespace {

ops::AttentionDesc make_desc(const AttentionSpec& spec, int32_t block_size) {
  return {.num_heads = spec.num_heads,
          .num_kv_heads = spec.cache_num_kv_heads(),
          .k_dim = spec.cache_k_dim(),
          .v_dim = spec.cache_v_dim(),
          .block_size = block_size,
          .sliding_window = 0,
          .softmax_scale = spec.softmax_scale};
}

}  // namespace

AttentionLayer::AttentionLayer(const ModelSpec& spec, int32_t block_size, InstanceId instance,
                               ops::Context context, comm::ShardExchange& exchange,
                               PhaseClock& phases)
    : spec_(spec),
      attention_(spec.attention),
      instance_(instance),
      context_(context),
      exchange_(exchange),
      phases_(phases),
      desc_(make_desc(spec.attention, block_size)),
      rotary_(spec.rotary) {}

void AttentionLayer::begin_step(const InstancePlan& plan) {
  plan_ = &plan;
  rotary_.prepare(plan.positions);
  const size_t num_instances = plan.num_query_receives.size();
  items_of_.resize(num_instances);
  appends_of_.resize(num_instances);
  for (auto& items : items_of_) items.clear();
  for (auto& appends : appends_of_) appends.clear();
  for (const auto& item : plan.items) items_of_[static_cast<size_t>(item.source)].push_back(item);
  for (const auto& append : plan.appends) {
    appends_of_[static_cast<size_t>(append.source)].push_back(append);
  }
}

Status AttentionLayer::run(const Layer& layer, tensor::ConstMatrix x, tensor::Matrix out) {
  project(*layer.weights, x);
  out_.resize(x.rows, int64_t{desc_.num_heads} * desc_.v_dim);
  lse_.resize(x.rows, desc_.num_heads);
  ops::clear_partials(out_.view(), lse_.view());
  NANOCP_RETURN_IF_ERROR(attend_everywhere(layer));
  if (attention_.sinks) ops::apply_sinks(out_.view(), lse_.view(), layer.weights->gqa.sinks);
  phases_.mark(StepPhase::kDense);
  project_output(*layer.weights, out);
  return ok_status();
}

Status AttentionLayer::attend_everywhere(const Layer& layer) {
  phases_.mark(StepPhase::kRoute);
  NANOCP_RETURN_IF_ERROR(exchange_.send(*plan_, q_.view(), kv_.view()));
  append(instance_, layer, kv_.view());
  phases_.mark(StepPhase::kAttention);
  attend(items_of_[static_cast<size_t>(instance_)], layer, q_.view(), {out_.view(), lse_.view()});
  const auto num_instances = static_cast<InstanceId>(items_of_.size());
  for (InstanceId i = 0; i < num_instances; ++i) {
    if (i != instance_) NANOCP_RETURN_IF_ERROR(answer(i, layer));
  }
  phases_.mark(StepPhase::kMerge);
  for (InstanceId i = 0; i < num_instances; ++i) {
    if (i != instance_) NANOCP_RETURN_IF_ERROR(merge_returned(i));
  }
  return ok_status();
}

Status AttentionLayer::answer(InstanceId source, const Layer& layer) {
  if (plan_->num_query_receives[static_cast<size_t>(source)] == 0) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const comm::ShardExchange::Received received,
                          exchange_.wait_rows(source));
  append(source, layer, received.kv);
  const comm::Partials slots = exchange_.return_slots(source);
  ops::clear_partials(slots.out, slots.lse);
  attend(items_of_[static_cast<size_t>(source)], layer, received.q, slots);
  exchange_.post_return(source);
  return ok_status();
}

Status AttentionLayer::merge_returned(InstanceId destination) {
  const auto rows = plan_->query_sends.rows(destination);
  if (rows.empty()) return ok_status();
  NANOCP_ASSIGN_OR_RETURN(const comm::ConstPartials returned, exchange_.wait_return(destination));
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto slot = static_cast<int64_t>(i);
    ops::merge_partials(out_.view().row_span(rows[i]), lse_.view().row_span(rows[i]),
                        returned.out.row_span(slot), returned.lse.row_span(slot));
  }
  return ok_status();
}

void AttentionLayer::append(InstanceId source, const Layer& layer, tensor::ConstMatrix kv) const {
  const ops::AttentionDesc desc = desc_for(layer);
  for (const KvAppend& entry : appends_of_[static_cast<size_t>(source)]) {
    ops::append_kv(desc, layer.cache, kv.row_span(entry.row), entry.slot);
  }
}

void AttentionLayer::attend(std::span<const AttentionItem> items, const Layer& layer,
                            tensor::ConstMatrix q, const comm::Partials& partials) const {
  ops::paged_attention(context_, {.desc = desc_for(layer),
                                  .cache = layer.cache,
                                  .items = items,
                                  .q = q,
                                  .out = partials.out,
                                  .lse = partials.lse});
}

ops::AttentionDesc AttentionLayer::desc_for(const Layer& layer) const {
  ops::AttentionDesc desc = desc_;
  desc.sliding_window = layer.sliding_window;
  return desc;
}

void AttentionLayer::project(const LayerWeights& weights, tensor::ConstMatrix x) {
  q_.resize(x.rows, int64_t{desc_.num_heads} * desc_.k_dim);
  kv_.resize(x.rows, attention_.cache_values_per_token());
  if (attention_.kind == AttentionKind::kMla) {
    project_mla(weights.mla, x);
  } else {
    project_gqa(weights.gqa, x);
  }
}

void AttentionLayer::project_gqa(const GqaWeights& weights, tensor::ConstMatrix x) {
  const int64_t kv_width = int64_t{attention_.num_kv_heads} * attention_.head_dim;
  const tensor::Matrix q = q_.view();
  const tensor::Matrix k = kv_.view().columns(0, kv_width);
  const tensor::Matrix v = kv_.view().columns(kv_width, kv_width);
  ops::linear(context_, x, weights.q.weight, weights.q.bias, q);
  ops::linear(context_, x, weights.k.weight, weights.k.bias, k);
  ops::linear(context_, x, weights.v.weight, weights.v.bias, v);
  if (attention_.qk_norm) {
    ops::rms_norm_heads(q, attention_.num_heads, weights.q_norm, spec_.rms_norm_eps);
    ops::rms_norm_heads(k, attention_.num_kv_heads, weights.k_norm, spec_.rms_norm_eps);
  }
  rotary_.apply(q, {attention_.num_heads, attention_.head_dim, 0});
  rotary_.apply(k, {attention_.num_kv_heads, attention_.head_dim, 0});
}

void AttentionLayer::project_mla(const MlaWeights& weights, tensor::ConstMatrix x) {
  const int64_t nope = attention_.qk_nope_head_dim;
  const int64_t head_width = nope + attention_.qk_rope_head_dim;
  tensor::ConstMatrix q_input = x;
  if (!weights.q_a.weight.empty()) {
    const tensor::Matrix latent = q_latent_.resize(x.rows, attention_.q_lora_rank);
    ops::linear(context_, x, weights.q_a.weight, weights.q_a.bias, latent);
    ops::rms_norm(latent, weights.q_a_norm, spec_.rms_norm_eps, latent);
    q_input = latent;
  }
  const tensor::Matrix q_full = q_full_.resize(x.rows, attention_.num_heads * head_width);
  ops::linear(context_, q_input, weights.q_b.weight, weights.q_b.bias, q_full);
  rotary_.apply(q_full, {attention_.num_heads, head_width, nope});
  absorb_queries(weights, q_full);

  const tensor::Matrix kv = kv_.view();
  ops::linear(context_, x, weights.kv_a.weight, weights.kv_a.bias, kv);
  const tensor::Matrix latent = kv.columns(0, attention_.kv_lora_rank);
  ops::rms_norm(latent, weights.kv_a_norm, spec_.rms_norm_eps, latent);
  rotary_.apply(kv, {1, 0, attention_.kv_lora_rank});
}

// Moves the key up-projection to the query side, so that scores are taken in the latent space.
void AttentionLayer::absorb_queries(const MlaWeights& weights, tensor::ConstMatrix q_full) {
  const int64_t nope = attention_.qk_nope_head_dim;
  const int64_t rope = attention_.qk_rope_head_dim;
  const int64_t latent = attention_.kv_lora_rank;
  const tensor::Matrix q = q_.view();
  context_.pool->parallel_for(attention_.num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      const tensor::ConstMatrix head = q_full.columns(h * (nope + rope), nope + rope);
      const tensor::Matrix absorbed = q.columns(h * (latent + rope), latent + rope);
      ops::linear({&inline_pool_}, head.columns(0, nope), weights.k_up[static_cast<size_t>(h)], {},
                  absorbed.columns(0, latent));
      for (int64_t r = 0; r < q.rows; ++r) {
        std::copy_n(head.row(r) + nope, rope, absorbed.row(r) + latent);
      }
    }
  });
}

void AttentionLayer::project_output(const LayerWeights& weights, tensor::Matrix out) {
  if (attention_.kind == AttentionKind::kGqa) {
    ops::linear(context_, out_.view(), weights.gqa.o.weight, weights.gqa.o.bias, out);
    return;
  }
  const int64_t latent = attention_.kv_lora_rank;
  const int64_t v_dim = attention_.v_head_dim;
  const tensor::ConstMatrix merged = out_.view();
  const tensor::Matrix values = values_.resize(merged.rows, attention_.num_heads * v_dim);
  context_.pool->parallel_for(attention_.num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; ++h) {
      ops::linear({&inline_pool_}, merged.columns(h * latent, latent),
                  weights.mla.v_up[static_cast<size_t>(h)], {}, values.columns(h * v_dim, v_dim));
    }
  });
  ops::linear(context_, values, weights.mla.o.weight, weights.mla.o.bias, out);
}

}  // namespace nanocp::model
