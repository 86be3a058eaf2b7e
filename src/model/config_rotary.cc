#include "model/config_rotary.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "model/config_validation.h"
#include "model/printable.h"

namespace nanocp::model {
namespace {

// YaRN's temperature (Peng et al., 2023, section 3.4), with DeepSeek's multiplier.
double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double parse_theta(ConfigReader& config, ConfigReader* rope, double fallback) {
  const double top = config.positive_or("rope_theta", fallback);
  if (rope == nullptr) return top;
  const double inner = rope->positive_or("rope_theta", top);
  if (config.has("rope_theta") && inner != top) {
    config.reject("rope_theta is " + std::to_string(top) + ", but " + std::to_string(inner) +
                  " within the rope settings");
  }
  return inner;
}

RotaryScaling parse_scaling_kind(ConfigReader& rope) {
  const std::string older = rope.text_or("type", "default");
  const std::string kind = rope.text_or("rope_type", older);
  if (rope.has("type") && older != kind) {
    rope.reject("rope_type is " + printable(kind) + " but type is " + printable(older));
  }
  if (kind == "default") return RotaryScaling::kNone;
  if (kind == "linear") return RotaryScaling::kLinear;
  if (kind == "yarn") return RotaryScaling::kYarn;
  rope.reject_unsupported("rope type \"" + printable(kind) +
                          "\" is not supported; supported: default, linear, yarn");
  return RotaryScaling::kNone;
}

double parse_factor(ConfigReader& rope) {
  if (!rope.has("factor")) rope.reject("factor is missing");
  const double factor = rope.positive_or("factor", 1.0);
  if (factor < 1 || factor > 1e6) {
    rope.reject("factor must be from 1 to 1e6, found " + std::to_string(factor));
  }
  return factor;
}

double parse_mscale(ConfigReader& rope, const char* name) {
  const double mscale = rope.number_or(name, 0.0);
  if (mscale >= 0 && mscale <= 100) return mscale;
  rope.reject(std::string(name) + " must be from 0 to 100, found " + std::to_string(mscale));
  return 0.0;
}

void parse_yarn(ConfigReader& rope, ModelSpec& spec) {
  RotarySpec& rotary = spec.rotary;
  rotary.beta_fast = rope.positive_or("beta_fast", 32.0);
  rotary.beta_slow = rope.positive_or("beta_slow", 1.0);
  if (rotary.beta_fast < rotary.beta_slow) {
    rope.reject("beta_fast " + std::to_string(rotary.beta_fast) + " is below beta_slow " +
                std::to_string(rotary.beta_slow));
  }
  rotary.truncate = rope.boolean_or("truncate", true);
  rotary.original_max_position =
      rope.integer_or({"original_max_position_embeddings"}, {1, kPositionMax}, spec.max_position);
  const double mscale = parse_mscale(rope, "mscale");
  const double mscale_all_dim = parse_mscale(rope, "mscale_all_dim");
  double scale = yarn_mscale(rotary.factor, 1.0);
  if (mscale != 0 && mscale_all_dim != 0) {
    scale = yarn_mscale(rotary.factor, mscale) / yarn_mscale(rotary.factor, mscale_all_dim);
  }
  rotary.cos_sin_scale = rope.positive_or("attention_factor", scale);
  if (spec.attention.kind == AttentionKind::kMla && mscale_all_dim != 0) {
    const double stretch = yarn_mscale(rotary.factor, mscale_all_dim);
    spec.attention.softmax_scale =
        static_cast<float>(spec.attention.softmax_scale * stretch * stretch);
  }
  const double stretched = rotary.factor * static_cast<double>(rotary.original_max_position);
  const auto reach = static_cast<int64_t>(std::min(stretched, static_cast<double>(kPositionMax)));
  spec.max_position = std::max(spec.max_position, reach);
}

int32_t parse_rotary_dim(ConfigReader& config, ConfigReader* rope, const ModelSpec& spec,
                         double default_factor) {
  if (spec.attention.kind == AttentionKind::kMla) return spec.attention.qk_rope_head_dim;
  double factor = config.positive_or("partial_rotary_factor", default_factor);
  if (rope != nullptr) factor = rope->positive_or("partial_rotary_factor", factor);
  if (factor > 1) {
    config.reject("partial_rotary_factor must be at most 1, found " + std::to_string(factor));
    return 2;
  }
  return static_cast<int32_t>(spec.attention.head_dim * factor);
}

}  // namespace

void parse_rotary(ConfigReader& config, ModelSpec& spec, RotaryRules rules) {
  RotarySpec& rotary = spec.rotary;
  auto rope = config.object(config.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
  ConfigReader* settings = rope ? &*rope : nullptr;
  rotary.interleaved = rules.interleaved;
  rotary.theta = parse_theta(config, settings, rules.default_theta);
  rotary.rotary_dim = parse_rotary_dim(config, settings, spec, rules.default_partial_factor);
  if (settings == nullptr) return;
  rotary.scaling = parse_scaling_kind(*settings);
  if (rotary.scaling != RotaryScaling::kNone) rotary.factor = parse_factor(*settings);
  if (rotary.scaling == RotaryScaling::kYarn) parse_yarn(*settings, spec);
  config.adopt(*settings);
}

}  // namespace nanocp::model
