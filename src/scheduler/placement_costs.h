// What placing a request costs an instance, in KV tokens: the tokens whose attention takes as long.
// Plain data. CostModel::placement_costs() derives it.
#pragma once

namespace nanocp::scheduler {

// The defaults are those of Qwen3-30B-A3B on 8 H100.
struct PlacementCosts {
  double row = 90.0;              // one row more on an instance
  double row_of_fullest = 280.0;  // one row more on the instance with most rows, beyond `row`
  double near_split = 14'000.0;   // to take part in splits within the domain at all
  double near_query = 40.0;       // a row sent to a holder in the domain
  double near_partial = 40.0;     // a result sent back to an instance of the domain
  double far_split = 38'000.0;    // the same between domains
  double far_query = 270.0;
  double far_partial = 270.0;
};

}  // namespace nanocp::scheduler
