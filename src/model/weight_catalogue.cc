#include "model/weight_catalogue.h"

#include <utility>

#include "model/weight_layout.h"

namespace nanocp::model {
namespace {

StoredType stored_type_of(tensor::WeightFormat format) {
  switch (format) {
    case tensor::WeightFormat::kF32:
      return StoredType::kF32;
    case tensor::WeightFormat::kF16:
      return StoredType::kF16;
    default:
      return StoredType::kBf16;
  }
}

class Lister final : public WeightVisitor {
 public:
  explicit Lister(const ModelSpec& spec)
      : spec_(spec), plain_type_(stored_type_of(spec.weight_format)) {}

  Status linear(const LinearRequest& request, LinearWeights&) override {
    const bool routed = request.role == WeightRole::kExpert;
    const bool quantised = spec_.quantization.kind == Quantization::kFp8Block &&
                           (routed || request.role == WeightRole::kProjection);
    const TensorKind kind =
        request.role == WeightRole::kEmbedding ? TensorKind::kEmbedding : TensorKind::kMatrix;
    add({.name = request.name + ".weight",
         .type = quantised ? StoredType::kF8E4m3 : plain_type_,
         .shape = {request.rows, request.cols},
         .kind = kind,
         .routed = routed,
         .fan_in = request.cols});
    if (quantised) add_fp8_scales(request, routed);
    if (request.bias) add_bias(request.name + ".bias", {request.rows}, routed);
    return ok_status();
  }

  Status vector(const std::string& name, int64_t size, std::vector<float>&) override {
    const bool is_norm = name.ends_with("norm.weight");
    const bool is_correction = name.ends_with("correction_bias");
    add({.name = name,
         .type = is_correction ? StoredType::kF32 : plain_type_,
         .shape = {size},
         .kind = is_norm ? TensorKind::kNorm : TensorKind::kBias});
    return ok_status();
  }

  Status latent_up(const LinearRequest& request, const AttentionSpec&, MlaWeights&) override {
    LinearWeights ignored;
    return linear(request, ignored);
  }

  Status fused_experts(const FusedExpertsRequest& request, std::vector<GatedMlpWeights>&) override {
    const int64_t both = 2 * request.intermediate;
    add_fused(request, request.prefix + ".gate_up_proj", both, request.hidden);
    add_fused(request, request.prefix + ".down_proj", request.hidden, request.intermediate);
    return ok_status();
  }

  std::vector<CatalogueEntry> take_entries() { return std::move(entries_); }

 private:
  void add(CatalogueEntry entry) {
    int64_t values = 1;
    for (const int64_t dim : entry.shape) values *= dim;
    entry.size_bytes = values * bits_per_value(entry.type) / 8;
    const int64_t per_value = entry.type == StoredType::kU8 ? 2 : 1;
    entry.num_parameters = entry.kind == TensorKind::kScales ? 0 : values * per_value;
    entries_.push_back(std::move(entry));
  }

  void add_bias(const std::string& name, std::vector<int64_t> shape, bool routed) {
    add({.name = name,
         .type = plain_type_,
         .shape = std::move(shape),
         .kind = TensorKind::kBias,
         .routed = routed});
  }

  void add_fp8_scales(const LinearRequest& request, bool routed) {
    const int64_t block_rows = spec_.quantization.block_rows;
    const int64_t block_cols = spec_.quantization.block_cols;
    add({.name = request.name + ".weight_scale_inv",
         .type = StoredType::kF32,
         .shape = {(request.rows + block_rows - 1) / block_rows,
                   (request.cols + block_cols - 1) / block_cols},
         .kind = TensorKind::kScales,
         .routed = routed,
         .fan_in = request.cols});
  }

  void add_fused(const FusedExpertsRequest& request, const std::string& name, int64_t rows,
                 int64_t cols) {
    const int64_t experts = request.num_experts;
    if (request.mxfp4) {
      const int64_t groups = cols / tensor::kMxfp4GroupSize;
      add({.name = name + "_blocks",
           .type = StoredType::kU8,
           .shape = {experts, rows, groups, tensor::kMxfp4GroupSize / 2},
           .routed = true,
           .fan_in = cols});
      add({.name = name + "_scales",
           .type = StoredType::kU8,
           .shape = {experts, rows, groups},
           .kind = TensorKind::kScales,
           .routed = true,
           .fan_in = cols});
    } else {
      add({.name = name,
           .type = plain_type_,
           .shape = {experts, cols, rows},
           .routed = true,
           .fan_in = cols});
    }
    if (request.bias) add_bias(name + "_bias", {experts, rows}, true);
  }

  const ModelSpec& spec_;
  const StoredType plain_type_;
  std::vector<CatalogueEntry> entries_;
};

}  // namespace

std::vector<CatalogueEntry> list_tensors(const ModelSpec& spec) {
  Lister lister(spec);
  ModelWeights ignored;
  const Status status = visit_weights(spec, lister, ignored);
  NANOCP_CHECK(status.ok());
  return lister.take_entries();
}

}  // namespace nanocp::model
