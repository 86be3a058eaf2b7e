// What placing a request costs an instance, in KV tokens: the tokens whose attention takes as long
// (CostModel::placement_costs() derives it), and what a policy that weighs costs does. Plain data.
#pragma once

namespace nanocp::scheduler {

// The defaults are those of Qwen3-30B-A3B on 8 H100.
struct PlacementCosts {
  double row = 90.0;              // one row more on an instance
  double row_of_fullest = 280.0;  // one row more on the instance with most rows, beyond `row`
  double row_of_all = 0.0;        // one row more anywhere, for the experts of all
  double near_split = 14'000.0;   // to take part in splits within the domain at all
  double near_query = 40.0;       // a row sent to a holder in the domain
  double near_partial = 40.0;     // a result sent back to an instance of the domain
  double far_split = 38'000.0;    // the same between domains
  double far_query = 270.0;
  double far_partial = 270.0;
  // What an instance may have of all this so that a step keeps the objective; 0: there is none.
  double budget = 0.0;
};

// Where instances are threads that share memory: what is sent costs no more than what is kept, and
// how small a shard may be is left to the policy's own limit.
inline PlacementCosts costs_without_routes() {
  PlacementCosts costs;
  costs.near_split = costs.near_query = costs.near_partial = 0.0;
  costs.far_split = costs.far_query = costs.far_partial = 0.0;
  return costs;
}

// What `dcp` does; all of it, but for measuring what a part is worth.
struct DcpParts {
  bool splits = true;           // else only where a request fits nowhere alone
  bool stays_in_domain = true;  // else the lowest instances of all domains are candidates together
  bool moves_bindings = true;   // of split requests, in any step
  bool moves_tails = true;      // K/V grows to other holders before an instance is full
  bool reserves_growth = true;  // admission leaves room for what runs to grow
  bool keeps_budget = false;  // requests wait rather than bring a step over PlacementCosts::budget
};

}  // namespace nanocp::scheduler
