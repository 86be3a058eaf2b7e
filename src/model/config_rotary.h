// The rotary embedding, from `rope_parameters` or from `rope_theta` and `rope_scaling`.
#pragma once

#include "model/config_reader.h"
#include "model/model_spec.h"

namespace nanocp::model {

struct RotaryRules {
  double default_theta = 10000.0;
  double default_partial_factor = 1.0;  // share of head_dim that rotates (GQA)
  bool interleaved = false;
};

// Fills spec.rotary, corrects attention.softmax_scale for YaRN where the family asks for it, and
// raises max_position to what YaRN stretches it to. Requires: spec.attention is filled.
void parse_rotary(ConfigReader& config, ModelSpec& spec, RotaryRules rules);

}  // namespace nanocp::model
