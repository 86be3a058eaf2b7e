#include "scheduler/cost_model.h"

#include <gtest/gtest.h>

#include <vector>

namespace nanocp::scheduler {
namespace {

CostModel make_model(int32_t num_instances) {
  CostModel model;
  model.shape = {.num_layers = 10,
                 .num_moe_layers = 8,
                 .num_experts = 64,
                 .experts_per_token = 4,
                 .num_instances = num_instances,
                 .num_instances_per_domain = 8};
  model.constants.attention_fixed_us = 5.0;
  model.constants.attention_us_per_kv_token = 0.001;
  model.constants.dense_fixed_us = 20.0;
  model.constants.route_fixed_us = 9.0;
  model.constants.route_us_per_byte = 0.001;
  model.constants.exchange_fixed_us = 12.0;
  model.constants.exchange_us_per_row = 0.5;
  model.constants.expert_us_per_touched_expert = 3.0;
  model.constants.step_fixed_us = 100.0;
  return model;
}

TEST(CostModel, TheSlowestInstanceSetsTheStep) {
  const CostModel model = make_model(2);
  std::vector<InstanceWork> work(2);
  work[0] = {.num_rows = 4, .num_attended_rows = 4, .num_kv_tokens = 100'000};
  work[1] = {.num_rows = 10, .num_attended_rows = 10, .num_kv_tokens = 1'000};
  const StepCost cost = model.step(work);
  EXPECT_DOUBLE_EQ(cost.local_us, 10 * (20.0 + 5.0 + 100.0));
  EXPECT_DOUBLE_EQ(cost.exchange_us, 8 * (12.0 + 0.5 * 10));
  EXPECT_DOUBLE_EQ(cost.mean_local_us, 10 * (25.0 + (100.0 + 1.0) / 2));
  EXPECT_DOUBLE_EQ(cost.step_us, cost.local_us + cost.exchange_us + cost.experts_us + 100.0);
}

TEST(CostModel, IdleInstancesAttendNothing) {
  const CostModel model = make_model(2);
  EXPECT_EQ(model.attention_us(InstanceWork{}), 0.0);
  EXPECT_EQ(model.exchange_us(0.0), 0.0);
  EXPECT_EQ(model.experts_us(0.0), 0.0);
}

TEST(CostModel, TouchedExpertsSaturate) {
  const CostModel model = make_model(4);
  EXPECT_NEAR(model.touched_experts(1), 16 * 4.0 / 64, 1e-9);
  EXPECT_LT(model.touched_experts(8), 16.0);
  EXPECT_NEAR(model.touched_experts(1000), 16.0, 1e-6);
  // On one instance every row is received.
  EXPECT_DOUBLE_EQ(make_model(1).received_rows(50), 50.0);
  EXPECT_NEAR(model.received_rows(100), 100 * (1 - 0.75 * 0.75 * 0.75 * 0.75), 1e-9);
}

TEST(CostModel, WindowLayersSeeTheWindowOnly) {
  CostModel model = make_model(1);
  model.shape.num_window_layers = 5;
  const InstanceWork work = {
      .num_rows = 1, .num_attended_rows = 1, .num_kv_tokens = 10'000, .num_window_tokens = 128};
  EXPECT_DOUBLE_EQ(model.attention_us(work), 5 * (5.0 + 10.0) + 5 * (5.0 + 0.128));
}

TEST(CostModel, RoutesCostTheirFloorAndTheirBytes) {
  CostModel model = make_model(2);
  model.constants.route_far_fixed_us = 30.0;
  model.constants.route_far_us_per_byte = 0.01;
  EXPECT_DOUBLE_EQ(model.route_us({.near_bytes = 1000, .is_split_near = true}), 10 * (9.0 + 1.0));
  EXPECT_DOUBLE_EQ(model.route_us({.far_bytes = 1000, .is_split_far = true}), 10 * (30.0 + 10.0));
  EXPECT_EQ(model.route_us({}), 0.0);
}

TEST(CostModel, TellsWhatRowsAndRoutesAreWorthInTokens) {
  CostModel model = make_model(2);
  model.shape.query_bytes = 100.0;
  model.shape.partial_bytes = 300.0;
  model.constants.dense_us_per_row = 0.1;
  model.constants.step_us_per_row = 2.0;
  model.constants.route_far_fixed_us = 30.0;
  model.constants.route_far_us_per_byte = 0.01;
  // 10 layers, 8 of them with experts, 10 x 0.001 us a token.
  const PlacementCosts costs = model.placement_costs();
  EXPECT_NEAR(costs.row, 10 * 0.1 / 0.01, 1e-6);
  EXPECT_NEAR(costs.row_of_fullest, (8 * 0.5 + 2.0) / 0.01, 1e-6);
  EXPECT_NEAR(costs.near_split, 9.0 / 0.001, 1e-6);
  EXPECT_NEAR(costs.near_query, 0.1 / 0.001, 1e-6);
  EXPECT_NEAR(costs.near_partial, 0.3 / 0.001, 1e-6);
  EXPECT_NEAR(costs.far_split, 30.0 / 0.001, 1e-6);
  EXPECT_NEAR(costs.far_query, 1.0 / 0.001, 1e-6);
  EXPECT_NEAR(costs.far_partial, 3.0 / 0.001, 1e-6);
  EXPECT_EQ(costs.budget, 0.0);
  // A step of 10 x (20 + 5) + 8 x (12 + 32 x 3) + 100 us has nothing left for tokens.
  EXPECT_NEAR(model.placement_costs(1214.0 + 50.0).budget, 50.0 / 0.01, 1e-6);
  EXPECT_EQ(model.placement_costs(1000.0).budget, 0.0);
  model.constants.attention_us_per_kv_token = 0.0;
  EXPECT_EQ(model.placement_costs(1264.0).budget, 0.0);
  EXPECT_EQ(model.placement_costs().row, 0.0);
  EXPECT_EQ(model.placement_costs().far_split, 0.0);
}

TEST(CostModel, AnIdealStepSharesAllWork) {
  CostModel model = make_model(2);
  model.constants.dense_us_per_row = 0.1;
  const std::vector<InstanceWork> even(
      2, {.num_rows = 4, .num_attended_rows = 4, .num_kv_tokens = 1000});
  std::vector<InstanceWork> uneven = even;
  uneven[0] = {.num_rows = 8, .num_attended_rows = 8, .num_kv_tokens = 1500};
  uneven[1] = {
      .num_attended_rows = 1, .num_kv_tokens = 500, .near_bytes = 500.0, .is_split_near = true};
  EXPECT_NEAR(model.ideal_step(even).step_us, model.step(even).step_us, 1e-9);
  EXPECT_LT(model.ideal_step(uneven).step_us, model.step(uneven).step_us);
  EXPECT_EQ(model.ideal_step(uneven).local_us, model.ideal_step(uneven).mean_local_us);
}

TEST(CostModel, EveryConstantHasANameAndAUnit) {
  for (const CostConstantField& field : cost_constant_fields()) {
    EXPECT_FALSE(field.name.empty());
    EXPECT_TRUE(field.unit.starts_with("us per")) << field.name;
  }
  EXPECT_EQ(cost_constant_fields().size() * sizeof(double), sizeof(CostConstants));
}

}  // namespace
}  // namespace nanocp::scheduler
