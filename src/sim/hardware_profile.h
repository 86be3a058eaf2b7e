// Where the cost model's constants come from: a machine described by its data sheet and a few
// measured efficiencies, and the shape of a model. Constants that somebody measured go before
// derived ones. Plain data; pure functions, any thread.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "scheduler/cost_model.h"

namespace nanocp::sim {

// A number and who says so: "measured ...", "data sheet ...", "published ...".
struct SourcedValue {
  double value = 0.0;
  std::string source;
};

// One GPU of a machine, its links, and what kernels reach on it.
struct HardwareProfile {
  std::string name;
  SourcedValue memory_gib;
  SourcedValue memory_gb_per_s;     // what streaming kernels read, 1e9 bytes per second
  SourcedValue bf16_tflops;         // what large matrix products reach
  SourcedValue attention_tflops;    // what decode attention with many heads reaches
  SourcedValue near_gb_per_s;       // to a neighbour over fast links, one direction
  SourcedValue near_round_trip_us;  // a row out, a partial back, with their flags
  SourcedValue far_gb_per_s;        // to another domain
  SourcedValue far_round_trip_us;
  SourcedValue exchange_near_us;  // dispatch and combine of one row within a domain
  SourcedValue exchange_far_us;   // and across domains
  SourcedValue kernel_us;         // start and end of a kernel in a graph
  SourcedValue layer_kernels;     // kernels of a layer besides attention and experts
  SourcedValue step_us;           // per step: head apart, host and launch
  int32_t num_instances_per_domain = 8;

  // Measured constants of one model on this machine, by the names of cost_constant_fields().
  // Empty model: none.
  std::string measured_model;
  std::map<std::string, SourcedValue> constants;
};

// What the costs depend on, of a model.
struct ModelShape {
  std::string name;
  int32_t num_layers = 1;
  int32_t num_moe_layers = 1;
  int32_t num_window_layers = 0;
  int32_t window_tokens = 0;
  int32_t num_experts = 1;
  int32_t experts_per_token = 1;
  int64_t hidden_bytes = 0;  // of one row
  int64_t kv_bytes_per_token_layer = 0;
  double attention_flops_per_token = 0;  // of one row and layer, for each token that it sees
  int64_t query_bytes = 0;               // one row and layer, as it travels
  int64_t partial_bytes = 0;
  int64_t dense_bytes_per_layer = 0;  // weights that every instance reads in a layer, on average
  int64_t head_bytes = 0;             // LM head
  int64_t expert_bytes = 0;           // weights of one expert
  double expert_flops_per_row = 0;    // of one row in one expert
};

struct DerivedCosts {
  scheduler::CostModel model;
  std::map<std::string, std::string> sources;  // by the name of the constant
};

// Requires: num_instances >= 1.
DerivedCosts derive_costs(const ModelShape& shape, const HardwareProfile& hardware,
                          int32_t num_instances);

}  // namespace nanocp::sim
