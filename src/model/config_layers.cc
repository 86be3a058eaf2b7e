#include "model/config_layers.h"

#include <algorithm>
#include <string>

#include "model/config_validation.h"
#include "model/printable.h"

namespace nanocp::model {
namespace {

void parse_dense_size(ConfigReader& config, ModelSpec& spec) {
  const bool has_dense = std::any_of(spec.layers.begin(), spec.layers.end(),
                                     [](const LayerSpec& layer) { return !layer.is_moe; });
  if (!has_dense) return;
  spec.dense_intermediate_size =
      static_cast<int32_t>(config.integer({"intermediate_size"}, {1, kSizeMax}));
}

void apply_layer_types(ConfigReader& config, ModelSpec& spec, int32_t window) {
  const auto types = config.texts("layer_types");
  if (types.size() != spec.layers.size()) {
    config.reject("layer_types has " + std::to_string(types.size()) +
                  " entries, but num_hidden_layers is " + std::to_string(spec.num_layers));
    return;
  }
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] == "sliding_attention") {
      if (window == 0) {
        config.reject("layer_types has sliding_attention, but sliding_window is missing or off");
      }
      spec.layers[i].sliding_window = window;
    } else if (types[i] != "full_attention") {
      config.reject_unsupported("layer_types has \"" + printable(types[i]) +
                                "\"; supported: full_attention, sliding_attention");
      return;
    }
  }
}

}  // namespace

void parse_sparse_step_layers(ConfigReader& config, ModelSpec& spec) {
  const int64_t step = config.integer_or({"decoder_sparse_step"}, {1, kLayersMax}, 1);
  spec.layers.resize(static_cast<size_t>(spec.num_layers));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    spec.layers[i].is_moe = (static_cast<int64_t>(i) + 1) % step == 0;
  }
  for (const int64_t index : config.integers("mlp_only_layers", {0, spec.num_layers - 1})) {
    spec.layers[static_cast<size_t>(index)].is_moe = false;
  }
  parse_dense_size(config, spec);
}

void parse_dense_first_layers(ConfigReader& config, ModelSpec& spec, int64_t default_dense) {
  const int64_t first = config.integer_or({"first_k_dense_replace"}, {0, spec.num_layers},
                                          std::min<int64_t>(default_dense, spec.num_layers));
  const int64_t step = config.integer_or({"moe_layer_freq"}, {1, kLayersMax}, 1);
  spec.layers.resize(static_cast<size_t>(spec.num_layers));
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    spec.layers[i].is_moe = index >= first && index % step == 0;
  }
  parse_dense_size(config, spec);
}

void parse_sliding_windows(ConfigReader& config, ModelSpec& spec, WindowRules rules) {
  const auto window = static_cast<int32_t>(
      rules.enabled ? config.integer_or({"sliding_window"}, {1, kPositionMax}, 0) : 0);
  if (config.has("layer_types")) {
    apply_layer_types(config, spec, window);
    return;
  }
  if (rules.alternating && window == 0) {
    config.reject("sliding_window is missing");
    return;
  }
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    const bool sees_all = rules.alternating && i % 2 == 1;
    spec.layers[i].sliding_window = sees_all ? 0 : window;
  }
}

}  // namespace nanocp::model
