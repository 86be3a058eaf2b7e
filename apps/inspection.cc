#include "apps/inspection.h"

#include <algorithm>
#include <cstdio>

#include "apps/grouped_number.h"

namespace nanocp::apps {
namespace {

using model::AttentionKind;
using model::ModelSpec;
using model::Quantization;

// Four digits and a unit of thousands: "30.53 G" bytes, "30.53 B" (billion) parameters.
std::string scaled(int64_t number, const char* billion = "G") {
  const char* units[] = {"", "k", "M", billion, "T", "P"};
  auto value = static_cast<double>(number);
  size_t unit = 0;
  while (value >= 999.95 && unit + 1 < std::size(units)) {
    value /= 1000;
    ++unit;
  }
  char text[48];
  std::snprintf(text, sizeof(text), unit == 0 ? "%.0f %s" : "%.4g %s", value, units[unit]);
  return text;
}

std::string line(const std::string& name, const std::string& value) {
  std::string padded = name;
  padded.resize(std::max<size_t>(padded.size() + 1, 20), ' ');
  return padded + value + "\n";
}

int64_t num_moe_layers(const ModelSpec& spec) {
  return std::count_if(spec.layers.begin(), spec.layers.end(),
                       [](const model::LayerSpec& layer) { return layer.is_moe; });
}

std::string attention_text(const ModelSpec& spec) {
  const model::AttentionSpec& a = spec.attention;
  std::string text = std::to_string(a.num_heads) + " heads, ";
  if (a.kind == AttentionKind::kMla) {
    text += "latent " + std::to_string(a.kv_lora_rank) + " + " +
            std::to_string(a.qk_rope_head_dim) + " rotary";
    text += a.q_lora_rank > 0 ? ", query latent " + std::to_string(a.q_lora_rank) : "";
  } else {
    text += std::to_string(a.num_kv_heads) + " KV heads x " + std::to_string(a.head_dim);
  }
  text += a.qkv_bias ? ", biases" : "";
  text += a.qk_norm ? ", q/k norm" : "";
  text += a.sinks ? ", sinks" : "";
  const auto windowed =
      std::find_if(spec.layers.begin(), spec.layers.end(),
                   [](const model::LayerSpec& layer) { return layer.sliding_window > 0; });
  if (windowed != spec.layers.end()) {
    const auto count =
        std::count_if(spec.layers.begin(), spec.layers.end(),
                      [](const model::LayerSpec& layer) { return layer.sliding_window > 0; });
    text += ", window of " + std::to_string(windowed->sliding_window) + " tokens in " +
            std::to_string(count) + " layers";
  }
  return text;
}

std::string rotary_text(const model::RotarySpec& rotary) {
  std::string text =
      std::to_string(rotary.rotary_dim) + " dimensions, theta " + scaled(int64_t(rotary.theta));
  if (rotary.scaling == model::RotaryScaling::kNone) return text;
  const bool is_yarn = rotary.scaling == model::RotaryScaling::kYarn;
  char factor[32];
  std::snprintf(factor, sizeof(factor), "%g", rotary.factor);
  text += std::string(is_yarn ? ", YaRN x " : ", linear x ") + factor;
  if (is_yarn) text += " from " + grouped(rotary.original_max_position);
  return text;
}

std::string experts_text(const model::MoeSpec& moe) {
  const model::RouterSpec& router = moe.router;
  std::string text = std::to_string(moe.num_experts) + " of size " +
                     grouped(moe.expert_intermediate_size) + ", " + std::to_string(router.topk) +
                     " per token";
  if (moe.shared_intermediate_size > 0) {
    text += ", shared experts of size " + grouped(moe.shared_intermediate_size);
  }
  text += router.score == model::RouterScore::kSoftmax ? ", softmax router" : ", sigmoid router";
  if (router.num_groups > 1) {
    text += ", " + std::to_string(router.topk_groups) + " of " + std::to_string(router.num_groups) +
            " groups";
  }
  return text;
}

const char* weights_text(const ModelSpec& spec) {
  switch (spec.quantization.kind) {
    case Quantization::kFp8Block:
      return "fp8";
    case Quantization::kMxfp4:
      return "mxfp4 experts";
    case Quantization::kNone:
      break;
  }
  return tensor::to_string(spec.weight_format);
}

// 1, 2, 4, ... and all instances.
std::vector<int32_t> shown_degrees(int32_t num_instances) {
  std::vector<int32_t> degrees;
  for (int32_t degree = 1; degree < num_instances; degree *= 2) degrees.push_back(degree);
  degrees.push_back(num_instances);
  return degrees;
}

std::string memory_text(const Inspection& inspection) {
  const model::InstanceMemory& memory = inspection.memory;
  if (memory.size_bytes == 0) return "";
  char percent[16];
  std::snprintf(percent, sizeof(percent), "%.0f %%", memory.usable_fraction * 100);
  std::string text = line("memory", scaled(memory.size_bytes) + "B per instance, " + percent +
                                        " of it for weights and KV cache");
  if (inspection.kv_tokens_per_instance == 0) {
    return text + line("KV cache", "no room: the weights do not fit; use more --instances");
  }
  text += line("KV cache", grouped(inspection.kv_tokens_per_instance) + " tokens per instance");
  for (const LongestRequest& longest : inspection.longest) {
    const bool is_limit = longest.num_tokens == inspection.spec.max_position;
    text += line("longest request", grouped(longest.num_tokens) + " tokens at degree " +
                                        std::to_string(longest.degree) +
                                        (is_limit ? " (the model's limit)" : ""));
  }
  return text;
}

}  // namespace

Inspection inspect_model(const ModelSpec& spec, const InspectionRequest& request) {
  Inspection inspection{
      .config_file = request.config_file,
      .spec = spec,
      .num_instances = request.num_instances,
      .parameters = model::count_parameters(spec),
      .weight_bytes = model::count_weight_bytes(spec),
      .kv_bytes_per_token = model::kv_bytes_per_token(spec, request.memory.kv_format),
      .memory = request.memory,
      .kv_tokens_per_instance = 0,
      .longest = {}};
  if (request.memory.size_bytes == 0) return inspection;
  const int32_t count = request.num_instances;
  inspection.kv_tokens_per_instance = model::kv_tokens_per_instance(spec, count, request.memory);
  for (const int32_t degree : shown_degrees(count)) {
    inspection.longest.push_back(
        {degree, model::longest_request_tokens(spec, {.num_instances = count, .degree = degree},
                                               request.memory)});
  }
  return inspection;
}

std::string inspection_text(const Inspection& inspection) {
  const ModelSpec& spec = inspection.spec;
  const int64_t moe_layers = num_moe_layers(spec);
  std::string layers = std::to_string(spec.num_layers);
  if (moe_layers < spec.num_layers) {
    layers += " (" + std::to_string(spec.num_layers - moe_layers) + " dense, MLP of size " +
              grouped(spec.dense_intermediate_size) + ")";
  }
  const int32_t count = inspection.num_instances;
  const model::WeightBytes& bytes = inspection.weight_bytes;
  return line("model", spec.architecture) + line("config", inspection.config_file) +
         line("layers", layers) +
         line("sizes",
              "hidden " + grouped(spec.hidden_size) + ", vocabulary " + grouped(spec.vocab_size)) +
         line("attention", attention_text(spec)) + line("rotary", rotary_text(spec.rotary)) +
         line("experts", experts_text(spec.moe)) +
         line("positions", grouped(spec.max_position) + " tokens") +
         line("parameters", scaled(inspection.parameters.total, "B") + " in all, " +
                                scaled(inspection.parameters.active, "B") +
                                " active per token (without the embedding table)") +
         line("weights", scaled(bytes.total()) + "B (" + weights_text(spec) +
                             "): " + scaled(bytes.replicated) + "B on every instance, " +
                             scaled(bytes.experts) + "B of experts shared out") +
         line("per instance",
              scaled(bytes.per_instance(count)) + "B of weights on " +
                  (count == 1 ? "the one instance"
                              : "each of " + std::to_string(count) + " instances")) +
         line("KV cache", grouped(inspection.kv_bytes_per_token) + " bytes per token") +
         memory_text(inspection);
}

nlohmann::json inspection_json(const Inspection& inspection) {
  const ModelSpec& spec = inspection.spec;
  nlohmann::json document = {
      {"architecture", spec.architecture},
      {"config_file", inspection.config_file},
      {"num_layers", spec.num_layers},
      {"num_moe_layers", num_moe_layers(spec)},
      {"hidden_size", spec.hidden_size},
      {"vocab_size", spec.vocab_size},
      {"num_heads", spec.attention.num_heads},
      {"num_kv_heads", spec.attention.cache_num_kv_heads()},
      {"attention", spec.attention.kind == AttentionKind::kMla ? "mla" : "gqa"},
      {"num_experts", spec.moe.num_experts},
      {"topk", spec.moe.router.topk},
      {"max_position", spec.max_position},
      {"weights", weights_text(spec)},
      {"parameters",
       {{"total", inspection.parameters.total}, {"active", inspection.parameters.active}}},
      {"num_instances", inspection.num_instances},
      {"weight_bytes",
       {{"total", inspection.weight_bytes.total()},
        {"replicated", inspection.weight_bytes.replicated},
        {"experts", inspection.weight_bytes.experts},
        {"per_instance", inspection.weight_bytes.per_instance(inspection.num_instances)}}},
      {"kv_bytes_per_token", inspection.kv_bytes_per_token}};
  if (inspection.memory.size_bytes == 0) return document;
  document["memory_bytes_per_instance"] = inspection.memory.size_bytes;
  document["usable_fraction"] = inspection.memory.usable_fraction;
  document["kv_tokens_per_instance"] = inspection.kv_tokens_per_instance;
  document["longest_request"] = nlohmann::json::array();
  for (const LongestRequest& longest : inspection.longest) {
    document["longest_request"].push_back(
        {{"degree", longest.degree}, {"num_tokens", longest.num_tokens}});
  }
  return document;
}

}  // namespace nanocp::apps
