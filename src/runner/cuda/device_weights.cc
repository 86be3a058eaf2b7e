#include "runner/cuda/device_weights.h"

#include <cmath>
#include <initializer_list>

#include "backend/cuda/cuda_status.h"
#include "model/expert_placement.h"
#include "runner/cuda/weight_uploader.h"

namespace nanocp::runner {
namespace {

using model::AttentionKind;
using model::GatedMlpWeights;
using model::LayerWeights;
using model::LinearWeights;
using model::ModelSpec;

constexpr int64_t kBf16Bytes = 2;
constexpr int64_t kFloatBytes = 4;
constexpr uint64_t kSeedsPerLayer = 100'000;
constexpr int32_t kSeedsPerExpert = 8;
constexpr uint64_t kSeedsPerModel = 100'000'000;

// Rows of a matrix on the GPU and where they come from; `source` null: dummy values.
struct Part {
  int64_t rows;
  const LinearWeights* source;
};

// Of no experts yet.
cuda::ExpertShape expert_shape(const ModelSpec& spec, tensor::WeightFormat format) {
  return {.hidden = spec.hidden_size,
          .intermediate = spec.moe.expert_intermediate_size,
          .num_experts = 0,
          .has_bias = spec.moe.expert_bias,
          .format = format};
}

class Loader {
 public:
  Loader(const ModelSpec& spec, const model::ModelWeights* source, const DeviceLoadOptions& options,
         WeightUploader& uploader, DeviceWeights& target)
      : spec_(spec),
        source_(source),
        options_(options),
        uploader_(uploader),
        target_(target),
        placement_(spec.moe.num_experts, options.num_instances) {}

  Status load();

 private:
  Status load_ends();
  Status load_layer(int32_t index);
  Status load_gqa(const LayerWeights* source, DeviceLayerWeights& layer);
  Status load_mla(const LayerWeights* source, DeviceLayerWeights& layer);
  Status load_latent_up(const LayerWeights* source, DeviceLayerWeights& layer);
  Status load_moe(const LayerWeights* source, int32_t index, DeviceLayerWeights& layer);
  Status load_experts(const LayerWeights* source, int32_t index, DeviceLayerWeights& layer);
  Status load_expert(const GatedMlpWeights* expert, const cuda::ExpertWeights& target, void* packed,
                     int32_t local_index);
  Result<tensor::WeightView> stage(const LinearWeights* source, int64_t rows, int64_t cols,
                                   tensor::WeightFormat format, int slot);
  Status load_expert_bias(const GatedMlpWeights* expert, const cuda::ExpertWeights& target,
                          int64_t index);
  Result<DeviceMlp> mlp(int64_t intermediate, const GatedMlpWeights* source);
  Result<DeviceLinear> linear(int64_t cols, std::initializer_list<Part> parts);
  void report(int64_t bytes) const {
    if (options_.done) options_.done(bytes);
  }
  Status matrix(const tensor::WeightView* w, int64_t rows, int64_t cols, void* out);
  Result<const float*> norm(int64_t size, const std::vector<float>* source);
  Result<const float*> floats(int64_t size, const std::vector<float>* source);
  Result<const float*> bias(std::initializer_list<Part> parts, int64_t rows);

  const ModelSpec& spec_;
  const model::ModelWeights* source_;
  const DeviceLoadOptions& options_;
  WeightUploader& uploader_;
  DeviceWeights& target_;
  const model::ExpertPlacement placement_;
  uint64_t seed_ = 0;  // of the current layer
};

Status Loader::load() {
  NANOCP_RETURN_IF_ERROR(load_ends());
  target_.layers.resize(static_cast<size_t>(spec_.num_layers));
  for (int32_t i = 0; i < spec_.num_layers; ++i) NANOCP_RETURN_IF_ERROR(load_layer(i));
  return uploader_.finish();
}

Status Loader::load_ends() {
  NANOCP_ASSIGN_OR_RETURN(
      void* embedding, target_.arena.take<uint16_t>(int64_t{spec_.vocab_size} * spec_.hidden_size));
  NANOCP_RETURN_IF_ERROR(matrix(source_ == nullptr ? nullptr : &source_->embedding,
                                spec_.vocab_size, spec_.hidden_size, embedding));
  target_.embedding = embedding;
  NANOCP_ASSIGN_OR_RETURN(
      target_.final_norm,
      norm(spec_.hidden_size, source_ == nullptr ? nullptr : &source_->final_norm));
  if (spec_.tie_word_embeddings) {
    target_.lm_head = {embedding, nullptr, spec_.vocab_size, spec_.hidden_size};
    return ok_status();
  }
  NANOCP_ASSIGN_OR_RETURN(
      target_.lm_head,
      linear(spec_.hidden_size,
             {{spec_.vocab_size, source_ == nullptr ? nullptr : &source_->lm_head}}));
  return ok_status();
}

Status Loader::load_layer(int32_t index) {
  const auto i = static_cast<size_t>(index);
  DeviceLayerWeights& layer = target_.layers[i];
  seed_ = options_.dummy_seed * kSeedsPerModel + static_cast<uint64_t>(index + 1) * kSeedsPerLayer;
  uploader_.set_seed(seed_);
  const LayerWeights* source = source_ == nullptr ? nullptr : &source_->layers[i];
  NANOCP_ASSIGN_OR_RETURN(layer.input_norm,
                          norm(spec_.hidden_size, source ? &source->input_norm : nullptr));
  NANOCP_ASSIGN_OR_RETURN(layer.post_attention_norm,
                          norm(spec_.hidden_size, source ? &source->post_attention_norm : nullptr));
  if (spec_.attention.kind == AttentionKind::kMla) {
    NANOCP_RETURN_IF_ERROR(load_mla(source, layer));
  } else {
    NANOCP_RETURN_IF_ERROR(load_gqa(source, layer));
  }
  if (spec_.layers[i].is_moe) return load_moe(source, index, layer);
  NANOCP_ASSIGN_OR_RETURN(layer.dense,
                          mlp(spec_.dense_intermediate_size, source ? &source->dense : nullptr));
  return ok_status();
}

Status Loader::load_gqa(const LayerWeights* source, DeviceLayerWeights& layer) {
  const model::AttentionSpec& a = spec_.attention;
  const int64_t q_rows = int64_t{a.num_heads} * a.head_dim;
  const int64_t kv_rows = int64_t{a.num_kv_heads} * a.head_dim;
  const model::GqaWeights* gqa = source ? &source->gqa : nullptr;
  NANOCP_ASSIGN_OR_RETURN(layer.qkv,
                          linear(spec_.hidden_size, {{q_rows, gqa ? &gqa->q : nullptr},
                                                     {kv_rows, gqa ? &gqa->k : nullptr},
                                                     {kv_rows, gqa ? &gqa->v : nullptr}}));
  NANOCP_ASSIGN_OR_RETURN(layer.o, linear(q_rows, {{spec_.hidden_size, gqa ? &gqa->o : nullptr}}));
  if (a.qk_norm) {
    NANOCP_ASSIGN_OR_RETURN(layer.q_norm, norm(a.head_dim, gqa ? &gqa->q_norm : nullptr));
    NANOCP_ASSIGN_OR_RETURN(layer.k_norm, norm(a.head_dim, gqa ? &gqa->k_norm : nullptr));
  }
  if (a.sinks) {
    NANOCP_ASSIGN_OR_RETURN(layer.sinks, floats(a.num_heads, gqa ? &gqa->sinks : nullptr));
  }
  return ok_status();
}

Status Loader::load_mla(const LayerWeights* source, DeviceLayerWeights& layer) {
  const model::AttentionSpec& a = spec_.attention;
  const model::MlaWeights* mla = source ? &source->mla : nullptr;
  const int64_t q_rows = int64_t{a.num_heads} * (a.qk_nope_head_dim + a.qk_rope_head_dim);
  const Part kv = {a.kv_lora_rank + a.qk_rope_head_dim, mla ? &mla->kv_a : nullptr};
  if (a.q_lora_rank > 0) {
    NANOCP_ASSIGN_OR_RETURN(
        layer.qkv, linear(spec_.hidden_size, {{a.q_lora_rank, mla ? &mla->q_a : nullptr}, kv}));
    NANOCP_ASSIGN_OR_RETURN(layer.q_norm, norm(a.q_lora_rank, mla ? &mla->q_a_norm : nullptr));
    NANOCP_ASSIGN_OR_RETURN(layer.q_b,
                            linear(a.q_lora_rank, {{q_rows, mla ? &mla->q_b : nullptr}}));
  } else {
    NANOCP_ASSIGN_OR_RETURN(layer.qkv,
                            linear(spec_.hidden_size, {{q_rows, mla ? &mla->q_b : nullptr}, kv}));
  }
  NANOCP_ASSIGN_OR_RETURN(layer.k_norm, norm(a.kv_lora_rank, mla ? &mla->kv_a_norm : nullptr));
  NANOCP_RETURN_IF_ERROR(load_latent_up(source, layer));
  NANOCP_ASSIGN_OR_RETURN(layer.o, linear(int64_t{a.num_heads} * a.v_head_dim,
                                          {{spec_.hidden_size, mla ? &mla->o : nullptr}}));
  return ok_status();
}

Status Loader::load_latent_up(const LayerWeights* source, DeviceLayerWeights& layer) {
  const model::AttentionSpec& a = spec_.attention;
  const int64_t k_size = int64_t{a.kv_lora_rank} * a.qk_nope_head_dim;
  const int64_t v_size = int64_t{a.kv_lora_rank} * a.v_head_dim;
  NANOCP_ASSIGN_OR_RETURN(uint16_t * k_up, target_.arena.take<uint16_t>(a.num_heads * k_size));
  NANOCP_ASSIGN_OR_RETURN(uint16_t * v_up, target_.arena.take<uint16_t>(a.num_heads * v_size));
  for (int32_t h = 0; h < a.num_heads; ++h) {
    const auto at = static_cast<size_t>(h);
    NANOCP_RETURN_IF_ERROR(matrix(source ? &source->mla.k_up[at] : nullptr, a.kv_lora_rank,
                                  a.qk_nope_head_dim, k_up + h * k_size));
    NANOCP_RETURN_IF_ERROR(matrix(source ? &source->mla.v_up[at] : nullptr, a.v_head_dim,
                                  a.kv_lora_rank, v_up + h * v_size));
  }
  layer.k_up = k_up;
  layer.v_up = v_up;
  return ok_status();
}

Status Loader::load_moe(const LayerWeights* source, int32_t index, DeviceLayerWeights& layer) {
  const int64_t num_experts = spec_.moe.num_experts;
  NANOCP_ASSIGN_OR_RETURN(
      layer.router, linear(spec_.hidden_size, {{num_experts, source ? &source->router : nullptr}}));
  if (spec_.moe.router.correction_bias) {
    NANOCP_ASSIGN_OR_RETURN(layer.correction_bias,
                            floats(num_experts, source ? &source->correction_bias : nullptr));
  }
  if (spec_.moe.shared_intermediate_size > 0) {
    NANOCP_ASSIGN_OR_RETURN(
        layer.shared, mlp(spec_.moe.shared_intermediate_size, source ? &source->shared : nullptr));
  }
  return load_experts(source, index, layer);
}

Status Loader::load_experts(const LayerWeights* source, int32_t index, DeviceLayerWeights& layer) {
  cuda::ExpertShape shape =
      expert_shape(spec_, options_.expert_formats->layers[static_cast<size_t>(index)]);
  int32_t begin = 0;
  while (begin < spec_.moe.num_experts && placement_.owner(begin) != options_.instance) ++begin;
  for (int32_t e = begin; e < spec_.moe.num_experts && placement_.owner(e) == options_.instance;
       ++e) {
    ++shape.num_experts;
  }
  layer.experts.shape = shape;
  if (shape.num_experts == 0) return ok_status();
  const int64_t packed_bytes = cuda::expert_weight_bytes(shape);
  NANOCP_ASSIGN_OR_RETURN(uint8_t * packed, target_.arena.take<uint8_t>(packed_bytes));
  layer.experts = cuda::expert_weights_at(shape, packed);
  for (int32_t e = 0; e < shape.num_experts; ++e) {
    // The same dummy expert on whichever instance owns it.
    uploader_.set_seed(seed_ + kSeedsPerLayer / 2 +
                       static_cast<uint64_t>(kSeedsPerExpert * (begin + e)));
    NANOCP_RETURN_IF_ERROR(
        load_expert(source ? &source->experts[static_cast<size_t>(begin + e)] : nullptr,
                    layer.experts, packed, e));
    report(packed_bytes / shape.num_experts);
  }
  return ok_status();
}

Status Loader::load_expert(const GatedMlpWeights* expert, const cuda::ExpertWeights& target,
                           void* packed, int32_t local_index) {
  const cuda::ExpertShape& shape = target.shape;
  const int64_t hidden = shape.hidden;
  const int64_t intermediate = shape.intermediate;
  cuda::PackExpertViewsArgs args;
  args.shape = shape;
  args.packed = packed;
  args.expert = local_index;
  NANOCP_ASSIGN_OR_RETURN(
      args.gate, stage(expert ? &expert->gate : nullptr, intermediate, hidden, shape.format, 0));
  NANOCP_ASSIGN_OR_RETURN(
      args.up, stage(expert ? &expert->up : nullptr, intermediate, hidden, shape.format, 1));
  NANOCP_ASSIGN_OR_RETURN(
      args.down, stage(expert ? &expert->down : nullptr, hidden, intermediate, shape.format, 2));
  NANOCP_RETURN_IF_ERROR(cuda::launch_pack_expert_views(args, uploader_.stream()));
  return load_expert_bias(expert, target, local_index);
}

Result<tensor::WeightView> Loader::stage(const LinearWeights* source, int64_t rows, int64_t cols,
                                         tensor::WeightFormat format, int slot) {
  if (source != nullptr) {
    NANOCP_CHECK_EQ(source->weight.rows, rows);
    NANOCP_CHECK_EQ(source->weight.cols, cols);
    return uploader_.stage(source->weight, format, slot);
  }
  tensor::WeightView shape;
  shape.format = format;
  shape.rows = rows;
  shape.cols = cols;
  if (format == tensor::WeightFormat::kFp8Block) {
    shape.block_rows = spec_.quantization.block_rows;
    shape.block_cols = spec_.quantization.block_cols;
  }
  return uploader_.stage_dummy(shape, slot);
}

// Zeros where the weights are dummy ones.
Status Loader::load_expert_bias(const GatedMlpWeights* expert, const cuda::ExpertWeights& target,
                                int64_t index) {
  if (expert == nullptr || target.gate_up_bias == nullptr) return ok_status();
  const int64_t intermediate = target.shape.intermediate;
  auto* gate = const_cast<float*>(target.gate_up_bias) + index * 2 * intermediate;
  auto* down = const_cast<float*>(target.down_bias) + index * target.shape.hidden;
  NANOCP_RETURN_IF_ERROR(uploader_.upload_floats(expert->gate.bias, gate));
  NANOCP_RETURN_IF_ERROR(uploader_.upload_floats(expert->up.bias, gate + intermediate));
  return uploader_.upload_floats(expert->down.bias, down);
}

Result<DeviceMlp> Loader::mlp(int64_t intermediate, const GatedMlpWeights* source) {
  DeviceMlp result;
  NANOCP_ASSIGN_OR_RETURN(
      result.gate_up, linear(spec_.hidden_size, {{intermediate, source ? &source->gate : nullptr},
                                                 {intermediate, source ? &source->up : nullptr}}));
  NANOCP_ASSIGN_OR_RETURN(
      result.down, linear(intermediate, {{spec_.hidden_size, source ? &source->down : nullptr}}));
  return result;
}

Result<DeviceLinear> Loader::linear(int64_t cols, std::initializer_list<Part> parts) {
  DeviceLinear result;
  result.cols = cols;
  for (const Part& part : parts) result.rows += part.rows;
  NANOCP_ASSIGN_OR_RETURN(uint16_t * data, target_.arena.take<uint16_t>(result.rows * cols));
  result.weight = data;
  for (const Part& part : parts) {
    NANOCP_RETURN_IF_ERROR(
        matrix(part.source ? &part.source->weight : nullptr, part.rows, cols, data));
    data += part.rows * cols;
  }
  NANOCP_ASSIGN_OR_RETURN(result.bias, bias(parts, result.rows));
  return result;
}

Status Loader::matrix(const tensor::WeightView* w, int64_t rows, int64_t cols, void* out) {
  if (w == nullptr) {
    const float amplitude = 1.0F / std::sqrt(static_cast<float>(cols));
    NANOCP_RETURN_IF_ERROR(uploader_.fill_random(out, rows * cols, amplitude));
  } else {
    NANOCP_CHECK_EQ(w->rows, rows);
    NANOCP_CHECK_EQ(w->cols, cols);
    NANOCP_RETURN_IF_ERROR(uploader_.upload_matrix(*w, out));
  }
  report(rows * cols * kBf16Bytes);
  return ok_status();
}

Result<const float*> Loader::norm(int64_t size, const std::vector<float>* source) {
  if (source != nullptr) return floats(size, source);
  NANOCP_ASSIGN_OR_RETURN(float* data, target_.arena.take<float>(size));
  NANOCP_RETURN_IF_ERROR(uploader_.fill_ones(data, size));
  report(size * kFloatBytes);
  return static_cast<const float*>(data);
}

// Zeros where the weights are dummy ones.
Result<const float*> Loader::floats(int64_t size, const std::vector<float>* source) {
  NANOCP_ASSIGN_OR_RETURN(float* data, target_.arena.take<float>(size));
  if (source != nullptr) {
    NANOCP_CHECK_EQ(static_cast<int64_t>(source->size()), size);
    NANOCP_RETURN_IF_ERROR(uploader_.upload_floats(*source, data));
  }
  report(size * kFloatBytes);
  return static_cast<const float*>(data);
}

Result<const float*> Loader::bias(std::initializer_list<Part> parts, int64_t rows) {
  std::vector<float> values;
  bool any = false;
  for (const Part& part : parts) {
    if (part.source == nullptr) continue;
    any = any || !part.source->bias.empty();
    std::vector<float> own = part.source->bias;
    own.resize(static_cast<size_t>(part.rows), 0.0F);
    values.insert(values.end(), own.begin(), own.end());
  }
  if (!any) return static_cast<const float*>(nullptr);
  return floats(rows, &values);
}

}  // namespace

model::WeightBytes count_device_bytes(const model::ModelSpec& spec, const ExpertFormats& formats) {
  model::WeightBytes bytes = {.replicated = replicated_device_bytes(spec),
                              .experts = 0,
                              .num_experts = spec.moe.num_experts};
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (!spec.layers[i].is_moe) continue;
    cuda::ExpertShape shape = expert_shape(spec, formats.layers[i]);
    shape.num_experts = spec.moe.num_experts;
    bytes.experts += cuda::expert_weight_bytes(shape);
  }
  return bytes;
}

Result<std::unique_ptr<DeviceWeights>> load_device_weights(const model::ModelSpec& spec,
                                                           const model::ModelWeights* weights,
                                                           const DeviceLoadOptions& options) {
  auto target = std::make_unique<DeviceWeights>("the weights of instance " +
                                                std::to_string(options.instance));
  NANOCP_CHECK(options.expert_formats != nullptr);
  NANOCP_ASSIGN_OR_RETURN(std::unique_ptr<WeightUploader> uploader,
                          WeightUploader::create(options.num_threads));
  uploader->set_seed(options.dummy_seed * 1'000'003);
  Loader loader(spec, weights, options, *uploader, *target);
  NANOCP_RETURN_IF_ERROR(loader.load());
  return target;
}

}  // namespace nanocp::runner
