// Which layers have experts, and which see a sliding window.
#pragma once

#include "model/config_reader.h"
#include "model/model_spec.h"

namespace nanocp::model {

// Qwen3-MoE: experts in every decoder_sparse_step-th layer that mlp_only_layers does not name.
void parse_sparse_step_layers(ConfigReader& config, ModelSpec& spec);

// DeepSeek, GLM: the first first_k_dense_replace layers are dense, then every moe_layer_freq-th
// layer has experts.
void parse_dense_first_layers(ConfigReader& config, ModelSpec& spec, int64_t default_dense);

struct WindowRules {
  bool enabled = false;      // otherwise sliding_window is ignored
  bool alternating = false;  // without layer_types: every second layer, the first one included
};
// Requires: spec.layers is filled.
void parse_sliding_windows(ConfigReader& config, ModelSpec& spec, WindowRules rules);

}  // namespace nanocp::model
