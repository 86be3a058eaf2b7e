#include "scheduler/cost_model.h"

#include <algorithm>
#include <cmath>

namespace nanocp::scheduler {

std::span<const CostConstantField> cost_constant_fields() {
  using C = CostConstants;
  static constexpr CostConstantField kFields[] = {
      {"attention_fixed_us", "us per layer", &C::attention_fixed_us},
      {"attention_us_per_kv_token", "us per layer and KV token", &C::attention_us_per_kv_token},
      {"attention_us_per_row", "us per layer and row", &C::attention_us_per_row},
      {"attention_us_per_pair", "us per layer and pair of prefill row and token",
       &C::attention_us_per_pair},
      {"dense_fixed_us", "us per layer", &C::dense_fixed_us},
      {"dense_us_per_row", "us per layer and row", &C::dense_us_per_row},
      {"route_fixed_us", "us per layer", &C::route_fixed_us},
      {"route_us_per_byte", "us per layer and byte", &C::route_us_per_byte},
      {"route_far_fixed_us", "us per layer", &C::route_far_fixed_us},
      {"route_far_us_per_byte", "us per layer and byte", &C::route_far_us_per_byte},
      {"exchange_fixed_us", "us per MoE layer", &C::exchange_fixed_us},
      {"exchange_us_per_row", "us per MoE layer and row", &C::exchange_us_per_row},
      {"expert_fixed_us", "us per MoE layer", &C::expert_fixed_us},
      {"expert_us_per_touched_expert", "us per MoE layer and expert",
       &C::expert_us_per_touched_expert},
      {"expert_us_per_row", "us per MoE layer and received row", &C::expert_us_per_row},
      {"step_fixed_us", "us per step", &C::step_fixed_us},
      {"step_us_per_row", "us per step and row", &C::step_us_per_row},
  };
  return kFields;
}

double CostModel::attention_us(const InstanceWork& work) const {
  if (work.num_attended_rows == 0) return 0.0;
  const CostConstants& c = constants;
  const auto layer_us = [&](int64_t num_tokens, int64_t num_pairs) {
    return c.attention_fixed_us + c.attention_us_per_row * work.num_attended_rows +
           c.attention_us_per_kv_token * static_cast<double>(num_tokens) +
           c.attention_us_per_pair * static_cast<double>(num_pairs);
  };
  const int32_t num_full = shape.num_layers - shape.num_window_layers;
  return num_full * layer_us(work.num_kv_tokens, work.num_pairs) +
         shape.num_window_layers * layer_us(work.num_window_tokens, work.num_window_pairs);
}

double CostModel::dense_us(const InstanceWork& work) const {
  return shape.num_layers * (constants.dense_fixed_us + constants.dense_us_per_row * work.num_rows);
}

double CostModel::route_us(const InstanceWork& work) const {
  double layer_us = 0.0;
  if (work.is_split_near) {
    layer_us += constants.route_fixed_us + constants.route_us_per_byte * work.near_bytes;
  }
  if (work.is_split_far) {
    layer_us += constants.route_far_fixed_us + constants.route_far_us_per_byte * work.far_bytes;
  }
  return shape.num_layers * layer_us;
}

double touched_share(int32_t topk, int32_t num_experts, double num_rows) {
  const double share = static_cast<double>(topk) / num_experts;
  return 1.0 - std::pow(1.0 - std::min(share, 1.0), num_rows);
}

double CostModel::touched_experts(double num_rows) const {
  const double per_instance = static_cast<double>(shape.num_experts) / shape.num_instances;
  return per_instance * touched_share(shape.experts_per_token, shape.num_experts, num_rows);
}

double CostModel::received_rows(double num_rows) const {
  const double others = 1.0 - 1.0 / shape.num_instances;
  return num_rows * (1.0 - std::pow(others, shape.experts_per_token));
}

double CostModel::experts_us(double num_rows_total) const {
  if (num_rows_total <= 0.0) return 0.0;
  return constants.expert_fixed_us +
         constants.expert_us_per_touched_expert * touched_experts(num_rows_total) +
         constants.expert_us_per_row * received_rows(num_rows_total);
}

double CostModel::exchange_us(double num_rows_max) const {
  if (num_rows_max <= 0.0) return 0.0;
  return constants.exchange_fixed_us + constants.exchange_us_per_row * num_rows_max;
}

PlacementCosts CostModel::placement_costs(double step_us) const {
  const CostConstants& c = constants;
  const int32_t num_full = std::max(1, shape.num_layers - shape.num_window_layers);
  const double token_us = num_full * c.attention_us_per_kv_token;
  if (token_us <= 0.0) return {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
  const double per_layer = shape.num_layers / token_us;
  const double all_experts = static_cast<double>(shape.num_experts) / shape.num_instances;
  const double fixed_us = shape.num_layers * (c.dense_fixed_us + c.attention_fixed_us) +
                          shape.num_moe_layers * (c.exchange_fixed_us + c.expert_fixed_us +
                                                  c.expert_us_per_touched_expert * all_experts) +
                          c.step_fixed_us;
  return {
      .row = (c.dense_us_per_row + c.attention_us_per_row) * per_layer,
      .row_of_fullest =
          (shape.num_moe_layers * c.exchange_us_per_row + c.step_us_per_row) / token_us,
      .row_of_all = shape.num_moe_layers * c.expert_us_per_row * received_rows(1.0) / token_us,
      .near_split = c.route_fixed_us * per_layer,
      .near_query = c.route_us_per_byte * shape.query_bytes * per_layer,
      .near_partial =
          (c.route_us_per_byte * shape.partial_bytes + c.attention_us_per_row) * per_layer,
      .far_split = c.route_far_fixed_us * per_layer,
      .far_query = c.route_far_us_per_byte * shape.query_bytes * per_layer,
      .far_partial =
          (c.route_far_us_per_byte * shape.partial_bytes + c.attention_us_per_row) * per_layer,
      .budget = std::max(0.0, step_us - fixed_us) / token_us,
  };
}

StepCost CostModel::step_of(double local_us, double mean_local_us, double num_rows_total,
                            double num_rows_max) const {
  StepCost cost;
  cost.local_us = local_us;
  cost.mean_local_us = mean_local_us;
  cost.exchange_us = shape.num_moe_layers * exchange_us(num_rows_max);
  cost.experts_us = shape.num_moe_layers * experts_us(num_rows_total);
  cost.other_us = constants.step_fixed_us + constants.step_us_per_row * num_rows_max;
  cost.step_us = cost.local_us + cost.exchange_us + cost.experts_us + cost.other_us;
  return cost;
}

StepCost CostModel::step(std::span<const InstanceWork> work) const {
  double local_max_us = 0.0;
  double local_mean_us = 0.0;
  int64_t num_rows_total = 0;
  int32_t num_rows_max = 0;
  for (const InstanceWork& one : work) {
    const double local_us = dense_us(one) + attention_us(one) + route_us(one);
    local_max_us = std::max(local_max_us, local_us);
    local_mean_us += local_us / static_cast<double>(work.size());
    num_rows_total += one.num_rows;
    num_rows_max = std::max(num_rows_max, one.num_rows);
  }
  return step_of(local_max_us, local_mean_us, static_cast<double>(num_rows_total), num_rows_max);
}

StepCost CostModel::ideal_step(std::span<const InstanceWork> work) const {
  double local_us = 0.0;
  int64_t num_rows = 0;
  for (const InstanceWork& one : work) {
    // A row is attended once, by whoever it is bound to.
    InstanceWork unsplit = one;
    unsplit.num_attended_rows = one.num_rows;
    local_us += dense_us(one) + attention_us(unsplit);
    num_rows += one.num_rows;
  }
  const auto num_instances = static_cast<double>(work.size());
  const auto num_rows_total = static_cast<double>(num_rows);
  return step_of(local_us / num_instances, local_us / num_instances, num_rows_total,
                 num_rows_total / num_instances);
}

}  // namespace nanocp::scheduler
