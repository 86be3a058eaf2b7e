#include "apps/step_bytes.h"

#include <algorithm>

#include "model/expert_placement.h"
#include "model/memory_estimate.h"
#include "model/weight_catalogue.h"
#include "scheduler/cost_model.h"

namespace nanocp::apps {
namespace {

// Probability that none of `num_local` of the experts is among the topk distinct ones of a row.
double miss_probability(const model::MoeSpec& moe, int64_t num_local) {
  double probability = 1.0;
  for (int64_t i = 0; i < moe.router.topk; ++i) {
    const auto left = static_cast<double>(moe.num_experts - i);
    probability *= std::max(0.0, left - static_cast<double>(num_local)) / left;
  }
  return probability;
}

class ByteCount {
 public:
  ByteCount(const model::ModelSpec& spec, int32_t num_instances, const StepFormats& formats)
      : spec_(spec),
        value_bytes_(formats.value_bytes),
        kv_format_(formats.kv),
        bytes_(static_cast<size_t>(num_instances)),
        num_rows_(bytes_.size(), 0.0) {
    const model::ExpertPlacement placement(spec.moe.num_experts, num_instances);
    num_experts_.assign(bytes_.size(), 0);
    for (const InstanceId owner : placement.owners()) ++num_experts_[static_cast<size_t>(owner)];
    for (const model::LayerSpec& layer : spec.layers) num_moe_layers_ += layer.is_moe ? 1.0 : 0.0;
  }

  void add_sequence(const request::Sequence& sequence, const kvcache::KvPlacement& placement) {
    const auto binding = static_cast<size_t>(sequence.binding);
    num_rows_[binding] += 1.0;
    for (const kvcache::Shard& shard : placement.shards()) {
      const auto holder = static_cast<size_t>(shard.holder);
      bytes_[holder].kv += kv_bytes(shard, placement);
      if (holder == binding) continue;
      bytes_[binding].query += query_bytes();
      bytes_[holder].partial += partial_bytes();
      if (placement.tail_holder() == shard.holder) bytes_[binding].query += sent_token_bytes();
    }
  }

  std::vector<StepBytes> finish() {
    add_weights();
    for (size_t i = 0; i < bytes_.size(); ++i) add_dispatch(i);
    return bytes_;
  }

 private:
  double num_layers() const { return static_cast<double>(spec_.num_layers); }
  double num_heads() const { return static_cast<double>(spec_.attention.num_heads); }
  double row_bytes() const { return static_cast<double>(spec_.hidden_size) * value_bytes_; }
  // Of one token in all layers.
  double token_bytes() const {
    return static_cast<double>(model::kv_bytes_per_token(spec_, kv_format_));
  }
  // CPU instances send float32 and the holder rounds; GPUs write a peer's cache in its own format.
  double sent_token_bytes() const {
    if (value_bytes_ < sizeof(float)) return token_bytes();
    return static_cast<double>(model::kv_bytes_per_token(spec_, tensor::KvFormat::kF32));
  }
  double query_bytes() const {
    return num_heads() * spec_.attention.cache_k_dim() * value_bytes_ * num_layers();
  }
  double partial_bytes() const {
    const double lse_bytes = sizeof(float);
    return num_heads() * (spec_.attention.cache_v_dim() * value_bytes_ + lse_bytes) * num_layers();
  }

  double kv_bytes(const kvcache::Shard& shard, const kvcache::KvPlacement& placement) const {
    double num_tokens = 0.0;  // over all layers
    for (const model::LayerSpec& layer : spec_.layers) {
      num_tokens += static_cast<double>(visible_tokens(shard, placement, layer.sliding_window));
    }
    return num_tokens * token_bytes() / num_layers();
  }

  static int64_t visible_tokens(const kvcache::Shard& shard, const kvcache::KvPlacement& placement,
                                int64_t window) {
    const int64_t end = placement.num_tokens();
    if (window == 0 || window >= end) return shard.num_tokens;
    const int64_t first = end - window;
    int64_t count = 0;
    const auto blocks_end = shard.block_idx.end();
    auto block = std::lower_bound(shard.block_idx.begin(), blocks_end,
                                  static_cast<int32_t>(first / placement.block_size()));
    for (; block != blocks_end; ++block) {
      const int64_t begin = int64_t{*block} * placement.block_size();
      count += std::max<int64_t>(
          0, std::min(end, begin + placement.block_size()) - std::max(first, begin));
    }
    return count;
  }

  void add_weights() {
    double replicated = 0.0;
    double routed = 0.0;
    for (const model::CatalogueEntry& entry : model::list_tensors(spec_)) {
      const bool is_table =
          entry.kind == model::TensorKind::kEmbedding && !spec_.tie_word_embeddings;
      if (!is_table) (entry.routed ? routed : replicated) += static_cast<double>(entry.size_bytes);
    }
    double all_rows = 0.0;
    for (const double rows : num_rows_) all_rows += rows;
    const auto num_experts = static_cast<double>(spec_.moe.num_experts);
    const double touched =
        scheduler::touched_share(spec_.moe.router.topk, spec_.moe.num_experts, all_rows);
    for (size_t i = 0; i < bytes_.size(); ++i) {
      bytes_[i].weights =
          replicated + routed / num_experts * static_cast<double>(num_experts_[i]) * touched;
    }
  }

  // A row goes once to each instance with one of its experts, and a sum comes back; which experts
  // it chose goes to all.
  void add_dispatch(size_t source) {
    const double choice_bytes = spec_.moe.router.topk * (sizeof(int32_t) + sizeof(float));
    for (size_t to = 0; to < bytes_.size(); ++to) {
      if (to == source) continue;
      const double rows = num_rows_[source] * num_moe_layers_;
      const double sent = rows * (1.0 - miss_probability(spec_.moe, num_experts_[to]));
      bytes_[source].dispatch += sent * row_bytes() + rows * choice_bytes;
      bytes_[to].combine += sent * row_bytes();
    }
  }

  const model::ModelSpec& spec_;
  const double value_bytes_;
  const tensor::KvFormat kv_format_;
  std::vector<StepBytes> bytes_;
  std::vector<double> num_rows_;
  std::vector<int64_t> num_experts_;  // [num_instances] in each MoE layer
  double num_moe_layers_ = 0.0;
};

}  // namespace

std::vector<StepBytes> count_step_bytes(const model::ModelSpec& spec, const engine::Engine& engine,
                                        const std::vector<SequenceId>& ids,
                                        const StepFormats& formats) {
  ByteCount count(spec, static_cast<int32_t>(engine.loads().size()), formats);
  for (const SequenceId id : ids) {
    const request::Sequence* sequence = engine.sequence(id);
    const kvcache::KvPlacement* placement = engine.placement(id);
    if (sequence == nullptr || placement == nullptr || sequence->binding == kNoInstance) continue;
    count.add_sequence(*sequence, *placement);
  }
  return count.finish();
}

}  // namespace nanocp::apps
