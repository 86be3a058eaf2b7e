#include "runner/device/expert_formats.h"

#include <cstdio>
#include <utility>

#include "model/weight_catalogue.h"

namespace nanocp::runner {
namespace {

using model::GatedMlpWeights;
using model::ModelSpec;
using tensor::WeightFormat;
using tensor::WeightView;

constexpr int64_t kBf16Bytes = 2;
constexpr int64_t kFloatBytes = 4;
// Of the packed form (backend/cuda/expert_mlp.h).
constexpr int64_t kScaleRowsUnit = 8;
constexpr int64_t kScaleColsUnit = 32;

struct LayerChoice {
  WeightFormat stored;
  std::string obstacle;  // why the kernels do not read it; empty if they do
};

std::string fp8_obstacle(int64_t block_rows, int64_t block_cols, int64_t row_offset) {
  if (block_rows % kScaleRowsUnit == 0 && block_cols % kScaleColsUnit == 0 &&
      row_offset % kScaleRowsUnit == 0) {
    return "";
  }
  return "the expert kernels read fp8 in blocks of multiples of 8 x 32 that begin at multiples "
         "of 8 rows, not " +
         std::to_string(block_rows) + " x " + std::to_string(block_cols) + " at row " +
         std::to_string(row_offset);
}

std::string plain_obstacle(WeightFormat format) {
  if (format == WeightFormat::kBf16) return "";
  return std::string("the expert kernels read bf16, fp8 and mxfp4, not ") +
         tensor::to_string(format);
}

std::string view_obstacle(const WeightView& view) {
  if (view.format == WeightFormat::kMxfp4) return "";
  if (view.format != WeightFormat::kFp8Block) return plain_obstacle(view.format);
  return fp8_obstacle(view.block_rows, view.block_cols, view.scale_row_offset);
}

LayerChoice of_views(const std::vector<GatedMlpWeights>& experts) {
  LayerChoice choice = {experts.front().gate.weight.format, ""};
  for (const GatedMlpWeights& expert : experts) {
    for (const model::LinearWeights* linear : {&expert.gate, &expert.up, &expert.down}) {
      const WeightView& view = linear->weight;
      if (view.format != choice.stored) {
        choice.obstacle = std::string("the experts of one layer are stored as ") +
                          tensor::to_string(choice.stored) + " and as " +
                          tensor::to_string(view.format);
        return choice;
      }
      choice.obstacle = view_obstacle(view);
      if (!choice.obstacle.empty()) return choice;
    }
  }
  return choice;
}

// Dummy weights of plain types are made as bf16.
LayerChoice of_spec(const ModelSpec& spec) {
  const model::QuantizationSpec& quantization = spec.quantization;
  switch (quantization.kind) {
    case model::Quantization::kFp8Block:
      return {WeightFormat::kFp8Block,
              fp8_obstacle(quantization.block_rows, quantization.block_cols, 0)};
    case model::Quantization::kMxfp4:
      return {WeightFormat::kMxfp4, ""};
    case model::Quantization::kNone:
      break;
  }
  return {WeightFormat::kBf16, ""};
}

std::string conversion_note(int num_layers, int first_layer, const LayerChoice& first) {
  std::string note = "experts of " + std::to_string(num_layers) +
                     (num_layers == 1 ? " layer" : " layers") + " are converted from " +
                     tensor::to_string(first.stored) + " to bf16";
  if (first.obstacle.empty()) return note + ", as --expert-weights bf16 asks";
  return note + ": in layer " + std::to_string(first_layer) + " " + first.obstacle;
}

std::string to_gb(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.2f GB", static_cast<double>(bytes) / 1e9);
  return text;
}

// The forms of the layers that have experts, each named once.
std::string form_names(const ModelSpec& spec, const ExpertFormats& formats) {
  std::string names;
  for (const WeightFormat format :
       {WeightFormat::kBf16, WeightFormat::kFp8Block, WeightFormat::kMxfp4}) {
    for (size_t i = 0; i < spec.layers.size(); ++i) {
      if (!spec.layers[i].is_moe || formats.layers[i] != format) continue;
      names += (names.empty() ? "" : " and ") + std::string(tensor::to_string(format));
      break;
    }
  }
  return names;
}

}  // namespace

Result<ExpertFormats> choose_expert_formats(const ModelSpec& spec,
                                            const model::ModelWeights* weights,
                                            ExpertWeightsChoice choice) {
  ExpertFormats formats;
  formats.layers.assign(spec.layers.size(), WeightFormat::kBf16);
  int num_converted = 0;
  int first_layer = 0;
  LayerChoice first = {};
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    if (!spec.layers[i].is_moe) continue;
    LayerChoice layer = weights == nullptr ? of_spec(spec) : of_views(weights->layers[i].experts);
    if (choice == ExpertWeightsChoice::kStored && !layer.obstacle.empty()) {
      return unsupported("--expert-weights stored: layer " + std::to_string(i) + ": " +
                         layer.obstacle + "; use --expert-weights auto, which converts to bf16");
    }
    const bool converts = choice == ExpertWeightsChoice::kBf16 ? layer.stored != WeightFormat::kBf16
                                                               : !layer.obstacle.empty();
    if (!converts) {
      formats.layers[i] = layer.stored;
      continue;
    }
    if (num_converted++ > 0) continue;
    first_layer = static_cast<int>(i);
    first = std::move(layer);
  }
  if (num_converted > 0) formats.note = conversion_note(num_converted, first_layer, first);
  return formats;
}

int64_t replicated_device_bytes(const ModelSpec& spec) {
  int64_t bytes = 0;
  for (const model::CatalogueEntry& entry : model::list_tensors(spec)) {
    if (entry.routed) continue;
    const bool is_matrix =
        entry.kind == model::TensorKind::kMatrix || entry.kind == model::TensorKind::kEmbedding;
    bytes += entry.num_parameters * (is_matrix ? kBf16Bytes : kFloatBytes);
  }
  return bytes;
}

std::string describe_weights(const ModelSpec& spec, const ExpertFormats& formats,
                             const model::WeightBytes& bytes, int32_t num_instances) {
  const int64_t total = bytes.per_instance(num_instances);
  std::string text = "weights: " + to_gb(total) + " on each GPU: experts " +
                     to_gb(total - bytes.replicated) + " as " + form_names(spec, formats) +
                     ", all else " + to_gb(bytes.replicated) + " as bf16";
  if (spec.quantization.kind == model::Quantization::kFp8Block) {
    text += " (its fp8 matrices are converted)";
  }
  return text;
}

}  // namespace nanocp::runner
