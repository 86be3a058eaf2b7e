// What a decode step costs, from what each instance does in it. One model for whoever predicts
// times: policies that weigh a split, and the simulator. Plain numbers; pure functions, any thread.
//
// A layer is lock-step: every instance runs its dense part and its attention, split requests add a
// route, and then all wait for the slowest before experts are dispatched. So, with n instances,
//   layer = max over i (dense + attention_i + route_i) + exchange(max rows) + experts(all rows)
//   step  = step_fixed + step_row * max rows + sum of layers.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "scheduler/placement_costs.h"

namespace nanocp::scheduler {

// Shape of the model and of the group of instances.
struct CostShape {
  int32_t num_layers = 1;
  int32_t num_moe_layers = 1;
  int32_t num_window_layers = 0;  // attention sees only the last `window_tokens`
  int32_t window_tokens = 0;
  int32_t num_experts = 1;
  int32_t experts_per_token = 1;
  int32_t num_instances = 1;
  int32_t num_instances_per_domain = 1;  // neighbours over fast links; divides into whole domains
  double query_bytes = 0.0;              // per row, layer and remote holder
  double partial_bytes = 0.0;            // partial result with its LSE, the same
};

// Times in microseconds; "layer" is one layer on one instance.
struct CostConstants {
  double attention_fixed_us = 0.0;         // per layer, where anything is attended
  double attention_us_per_kv_token = 0.0;  // per layer and token that a decode row sees
  double attention_us_per_row = 0.0;       // per layer and row, received ones included
  double attention_us_per_pair = 0.0;      // per layer, prefill row and token that it sees
  double dense_fixed_us = 0.0;             // per layer
  double dense_us_per_row = 0.0;           // per layer and row
  double route_fixed_us = 0.0;             // per layer, for each instance in a split
  double route_us_per_byte = 0.0;          // per byte sent within the domain
  double route_far_fixed_us = 0.0;         // as above, for splits across domains
  double route_far_us_per_byte = 0.0;      //
  double exchange_fixed_us = 0.0;          // dispatch and combine, per MoE layer
  double exchange_us_per_row = 0.0;        // per MoE layer and row of the fullest instance
  double expert_fixed_us = 0.0;            // per MoE layer
  double expert_us_per_touched_expert =
      0.0;                         // per MoE layer and expert of an instance that is read
  double expert_us_per_row = 0.0;  // per MoE layer and row that an instance receives
  double step_fixed_us = 0.0;      // per step: head, sampling, host
  double step_us_per_row = 0.0;    // per step and row of the fullest instance
};

// A constant's name as in profiles, its unit and its place in CostConstants.
struct CostConstantField {
  std::string_view name;
  std::string_view unit;
  double CostConstants::*value;
};
std::span<const CostConstantField> cost_constant_fields();

// What one instance does in a step; counts are of one layer.
struct InstanceWork {
  int32_t num_rows = 0;           // its own: one per token bound to it
  int32_t num_attended_rows = 0;  // rows of its work items, received ones included
  int64_t num_kv_tokens = 0;      // seen by decode rows in full layers
  int64_t num_window_tokens = 0;  // seen by decode rows in window layers
  int64_t num_pairs = 0;          // prefill rows times tokens that they see
  int64_t num_window_pairs = 0;
  double near_bytes = 0.0;     // queries and partials that it sends within its domain
  double far_bytes = 0.0;      // and to other domains
  bool is_split_near = false;  // sends or receives rows within its domain
  bool is_split_far = false;
};

// Microseconds of one step.
struct StepCost {
  double step_us = 0.0;
  double local_us = 0.0;     // of the slowest instance: dense, attention and route of all layers
  double exchange_us = 0.0;  // dispatch and combine of all layers
  double experts_us = 0.0;
  double other_us = 0.0;       // per step
  double mean_local_us = 0.0;  // over instances; local_us over this is the straggler ratio
};

// Expected share of experts that `num_rows` rows touch, each choosing `topk` of `num_experts`
// uniformly and independently.
double touched_share(int32_t topk, int32_t num_experts, double num_rows);

struct CostModel {
  CostShape shape;
  CostConstants constants;

  // Of all layers.
  double attention_us(const InstanceWork& work) const;
  double dense_us(const InstanceWork& work) const;
  double route_us(const InstanceWork& work) const;
  // One MoE layer. Routing is taken as uniform and independent: the expected number of experts of
  // an instance that `num_rows` rows of the whole group touch.
  double touched_experts(double num_rows) const;
  // Rows that come to an instance: once to each that owns one of the row's experts.
  double received_rows(double num_rows) const;
  double experts_us(double num_rows_total) const;
  double exchange_us(double num_rows_max) const;

  // All zero where a KV token costs nothing. `step_us`: the objective that `budget` is for; 0:
  // none.
  PlacementCosts placement_costs(double step_us = 0.0) const;

  // Requires: [num_instances] work.
  StepCost step(std::span<const InstanceWork> work) const;
  // The same work shared evenly by all instances, with no cost of sharing: what no placement beats.
  StepCost ideal_step(std::span<const InstanceWork> work) const;

 private:
  StepCost step_of(double local_us, double mean_local_us, double num_rows_total,
                   double num_rows_max) const;
};

}  // namespace nanocp::scheduler
