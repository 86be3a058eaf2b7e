#include "apps/profile_file.h"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/model_lookup.h"
#include "model/memory_estimate.h"

namespace nanocp::apps {
namespace {

using nlohmann::json;

struct HardwareField {
  const char* name;
  sim::SourcedValue sim::HardwareProfile::*value;
};
constexpr HardwareField kHardwareFields[] = {
    {"memory_gib", &sim::HardwareProfile::memory_gib},
    {"memory_gb_per_s", &sim::HardwareProfile::memory_gb_per_s},
    {"bf16_tflops", &sim::HardwareProfile::bf16_tflops},
    {"attention_tflops", &sim::HardwareProfile::attention_tflops},
    {"near_gb_per_s", &sim::HardwareProfile::near_gb_per_s},
    {"near_round_trip_us", &sim::HardwareProfile::near_round_trip_us},
    {"far_gb_per_s", &sim::HardwareProfile::far_gb_per_s},
    {"far_round_trip_us", &sim::HardwareProfile::far_round_trip_us},
    {"exchange_near_us", &sim::HardwareProfile::exchange_near_us},
    {"exchange_far_us", &sim::HardwareProfile::exchange_far_us},
    {"kernel_us", &sim::HardwareProfile::kernel_us},
    {"layer_kernels", &sim::HardwareProfile::layer_kernels},
    {"step_us", &sim::HardwareProfile::step_us},
};
// These divide something.
bool is_positive(const std::string& name) {
  return !name.ends_with("_us") && name != "layer_kernels";
}

Result<json> read_json(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path.string() + ": cannot be read");
  json document = json::parse(in, nullptr, false);
  if (!document.is_object()) return invalid_argument(path.string() + ": is not a JSON object");
  return document;
}

// From 0, or above 0, to 1e12.
Result<sim::SourcedValue> read_value(const json& parent, const std::string& name, bool is_positive,
                                     const std::string& where) {
  const auto found = parent.find(name);
  if (found == parent.end() || !found->is_object()) {
    return invalid_argument(where + ": " + name + " is missing; give {\"value\":, \"source\":}");
  }
  const auto value = found->find("value");
  const auto source = found->find("source");
  if (value == found->end() || !value->is_number() || source == found->end() ||
      !source->is_string()) {
    return invalid_argument(where + ": " + name + " needs a number `value` and a text `source`");
  }
  const auto number = value->get<double>();
  const bool is_sane =
      std::isfinite(number) && number <= 1e12 && (is_positive ? number > 0.0 : number >= 0.0);
  if (!is_sane) return invalid_argument(where + ": " + name + " is out of range");
  return sim::SourcedValue{number, source->get<std::string>()};
}

Error unknown_constant(const std::string& name, const std::string& where) {
  return invalid_argument(where + ": constant " + name +
                          " is unknown; calibrate again with this version");
}

Status read_constants(const json& document, const std::string& where,
                      sim::HardwareProfile& profile) {
  const auto constants = document.find("constants");
  const auto model = document.find("model");
  if (constants == document.end()) return ok_status();
  if (!constants->is_object() || model == document.end() || !model->is_string()) {
    return invalid_argument(where + ": `constants` needs the name of their `model`");
  }
  profile.measured_model = model->get<std::string>();
  profile.constants.clear();
  for (const auto& field : scheduler::cost_constant_fields()) {
    const std::string name(field.name);
    if (!constants->contains(name)) continue;
    NANOCP_ASSIGN_OR_RETURN(sim::SourcedValue value, read_value(*constants, name, false, where));
    profile.constants[name] = std::move(value);
  }
  for (const auto& item : constants->items()) {
    if (!profile.constants.contains(item.key())) {
      return unknown_constant(item.key(), where);
    }
  }
  return ok_status();
}

}  // namespace

Result<sim::HardwareProfile> read_hardware_profile(const std::string& name) {
  NANOCP_ASSIGN_OR_RETURN(const auto path, find_profile(name));
  NANOCP_ASSIGN_OR_RETURN(const json document, read_json(path));
  const std::string where = path.string();
  sim::HardwareProfile profile;
  profile.name = document.value("name", path.stem().string());
  const auto hardware = document.find("hardware");
  if (hardware == document.end() || !hardware->is_object()) {
    return invalid_argument(where + ": has no `hardware`; measured constants go to --constants");
  }
  for (const HardwareField& field : kHardwareFields) {
    NANOCP_ASSIGN_OR_RETURN(profile.*field.value,
                            read_value(*hardware, field.name, is_positive(field.name), where));
  }
  const auto domain = document.find("num_instances_per_domain");
  const bool has_domain = domain != document.end() && domain->is_number_integer() &&
                          domain->get<int64_t>() >= 1 && domain->get<int64_t>() <= 4096;
  if (!has_domain) {
    return invalid_argument(where + ": num_instances_per_domain must be from 1 to 4096");
  }
  profile.num_instances_per_domain = domain->get<int32_t>();
  NANOCP_RETURN_IF_ERROR(read_constants(document, where, profile));
  return profile;
}

Status add_measured_constants(const std::string& file, sim::HardwareProfile& profile) {
  NANOCP_ASSIGN_OR_RETURN(const auto path, find_profile(file));
  NANOCP_ASSIGN_OR_RETURN(const json document, read_json(path));
  if (!document.contains("constants")) {
    return invalid_argument(path.string() + ": has no `constants`");
  }
  return read_constants(document, path.string(), profile);
}

sim::ModelShape model_shape(const model::ModelSpec& spec, const std::string& name,
                            double kv_bytes_per_value) {
  constexpr double kFlops = 2.0;  // a multiplication and an addition
  constexpr int64_t kValueBytes = 2;
  const model::AttentionSpec& attention = spec.attention;
  const model::WeightBytes weights = model::count_weight_bytes(spec);
  const int64_t table_bytes = kValueBytes * spec.vocab_size * spec.hidden_size;
  sim::ModelShape shape;
  shape.name = name;
  shape.num_layers = spec.num_layers;
  shape.num_moe_layers = 0;
  for (const model::LayerSpec& layer : spec.layers) {
    shape.num_moe_layers += layer.is_moe ? 1 : 0;
    if (layer.sliding_window == 0) continue;
    ++shape.num_window_layers;
    shape.window_tokens = layer.sliding_window;
  }
  shape.num_experts = spec.moe.num_experts;
  shape.experts_per_token = spec.moe.router.topk;
  shape.hidden_bytes = kValueBytes * spec.hidden_size;
  shape.kv_bytes_per_token_layer =
      std::llround(kv_bytes_per_value * static_cast<double>(attention.cache_values_per_token()));
  shape.attention_flops_per_token =
      kFlops * attention.num_heads * (attention.cache_k_dim() + attention.cache_v_dim());
  shape.query_bytes = kValueBytes * attention.num_heads * attention.cache_k_dim();
  shape.partial_bytes = kValueBytes * attention.num_heads * attention.cache_v_dim() +
                        int64_t{4} * attention.num_heads;
  const int64_t num_tables = spec.tie_word_embeddings ? 1 : 2;
  shape.dense_bytes_per_layer =
      (weights.replicated - num_tables * table_bytes) / std::max(1, spec.num_layers);
  shape.head_bytes = table_bytes;
  const int64_t num_expert_copies = int64_t{shape.num_moe_layers} * spec.moe.num_experts;
  shape.expert_bytes = num_expert_copies > 0 ? weights.experts / num_expert_copies : 0;
  shape.expert_flops_per_row =
      kFlops * 3.0 * spec.moe.expert_intermediate_size * static_cast<double>(spec.hidden_size);
  return shape;
}

}  // namespace nanocp::apps
