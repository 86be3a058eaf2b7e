#include "sim/hardware_profile.h"

#include <algorithm>

namespace nanocp::sim {
namespace {

constexpr double kBytesPerUs = 1e3;  // per GB/s
constexpr double kFlopsPerUs = 1e6;  // per TFLOP/s

double read_us(double bytes, const HardwareProfile& hardware) {
  return bytes / (hardware.memory_gb_per_s.value * kBytesPerUs);
}

double compute_us(double flops, const SourcedValue& tflops) {
  return flops / (tflops.value * kFlopsPerUs);
}

scheduler::CostShape cost_shape(const ModelShape& shape, const HardwareProfile& hardware,
                                int32_t num_instances) {
  return {.num_layers = shape.num_layers,
          .num_moe_layers = shape.num_moe_layers,
          .num_window_layers = shape.num_window_layers,
          .window_tokens = shape.window_tokens,
          .num_experts = shape.num_experts,
          .experts_per_token = shape.experts_per_token,
          .num_instances = num_instances,
          .num_instances_per_domain = hardware.num_instances_per_domain,
          .query_bytes = static_cast<double>(shape.query_bytes),
          .partial_bytes = static_cast<double>(shape.partial_bytes)};
}

// Bytes of activations that one row sends and gets back in dispatch and combine, to the instances
// that own one of its experts.
double exchange_bytes(const ModelShape& shape, int32_t num_instances) {
  const double others = std::min(shape.experts_per_token, num_instances - 1);
  return 2.0 * static_cast<double>(shape.hidden_bytes) * std::max(0.0, others);
}

}  // namespace

DerivedCosts derive_costs(const ModelShape& shape, const HardwareProfile& hardware,
                          int32_t num_instances) {
  DerivedCosts derived;
  derived.model.shape = cost_shape(shape, hardware, num_instances);
  scheduler::CostConstants& c = derived.model.constants;
  const double kernel_us = hardware.kernel_us.value;
  const bool is_far = num_instances > hardware.num_instances_per_domain;
  const double near_us_per_byte = 1.0 / (hardware.near_gb_per_s.value * kBytesPerUs);
  const double far_us_per_byte = 1.0 / (hardware.far_gb_per_s.value * kBytesPerUs);

  // Attention reads each token once, and computes with it for every head.
  c.attention_fixed_us = 2.0 * kernel_us;  // attention and merge
  c.attention_us_per_kv_token =
      std::max(read_us(static_cast<double>(shape.kv_bytes_per_token_layer), hardware),
               compute_us(shape.attention_flops_per_token, hardware.attention_tflops));
  c.attention_us_per_pair = compute_us(shape.attention_flops_per_token, hardware.attention_tflops);
  const auto dense_bytes = static_cast<double>(shape.dense_bytes_per_layer);
  c.dense_fixed_us = hardware.layer_kernels.value * kernel_us + read_us(dense_bytes, hardware);
  c.dense_us_per_row = compute_us(dense_bytes, hardware.bf16_tflops);  // 2 flops per 2-byte weight
  c.route_fixed_us = hardware.near_round_trip_us.value;
  c.route_us_per_byte = near_us_per_byte;
  c.route_far_fixed_us = hardware.far_round_trip_us.value;
  c.route_far_us_per_byte = far_us_per_byte;
  if (num_instances > 1) {
    c.exchange_fixed_us = is_far ? hardware.exchange_far_us.value : hardware.exchange_near_us.value;
    c.exchange_us_per_row =
        exchange_bytes(shape, num_instances) * (is_far ? far_us_per_byte : near_us_per_byte);
  }
  c.expert_fixed_us = 2.0 * kernel_us;
  c.expert_us_per_touched_expert = read_us(static_cast<double>(shape.expert_bytes), hardware);
  const double experts_per_row =
      std::max(1.0, static_cast<double>(shape.experts_per_token) / num_instances);
  c.expert_us_per_row =
      compute_us(shape.expert_flops_per_row * experts_per_row, hardware.bf16_tflops);
  c.step_fixed_us =
      hardware.step_us.value + read_us(static_cast<double>(shape.head_bytes), hardware);
  c.step_us_per_row = compute_us(static_cast<double>(shape.head_bytes), hardware.bf16_tflops);

  for (const auto& field : scheduler::cost_constant_fields()) {
    const std::string name(field.name);
    derived.sources[name] = "derived from " + hardware.name;
    const auto measured = hardware.constants.find(name);
    if (hardware.measured_model != shape.name || measured == hardware.constants.end()) continue;
    c.*field.value = measured->second.value;
    derived.sources[name] = measured->second.source;
  }
  return derived;
}

}  // namespace nanocp::sim
