// The largest request rate that keeps the objectives: which rates to try, and a first guess. Plain
// data; pure functions, one thread at a time.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <vector>

#include "scheduler/cost_model.h"
#include "sim/metrics.h"

namespace nanocp::sim {

// Brackets and then bisects on a grid of rates, each `1 + precision` times the one before, so that
// every search compares the same rates and its answer is a rate that was simulated. Rates are named
// by their places on the grid. Takes for granted that a rate below one that keeps the objectives
// keeps them, too.
class RateSearch {
 public:
  // Starts at the guess. Where that does not tell both sides, goes up or down from it by
  // `guess_error` (0.25: 25 %), then by twice as much, and so on.
  // Requires: guess_per_s > 0, 0 < precision < 1, guess_error > 0.
  RateSearch(double guess_per_s, double precision, double guess_error);

  // The rate to try now; none: the search is over.
  std::optional<int32_t> next() const;
  // Requires: place is next().
  void record(int32_t place, bool is_met);
  // No rate will do, whatever is tried.
  void give_up() { is_over_ = true; }

  // Up to `count` rates that will or may have to be tried next, the most likely ones first: for
  // trying several at once. What is found does not depend on it.
  std::vector<int32_t> upcoming(size_t count) const;

  // Requests per second, with four digits.
  double rate_per_s(int32_t place) const;
  // The largest rate known to keep the objectives, and the smallest known not to; none: not found.
  std::optional<int32_t> met() const { return met_; }
  std::optional<int32_t> missed() const { return missed_; }

 private:
  double precision_;
  int32_t place_min_;
  int32_t place_max_;
  int32_t start_;
  int32_t stride_;  // of the next step up or down
  std::optional<int32_t> met_;
  std::optional<int32_t> missed_;
  bool is_over_ = false;
};

// What a rate is estimated from.
struct RateEstimateInput {
  const scheduler::CostModel& cost;
  int64_t kv_tokens_per_instance = 0;
  int32_t max_num_seqs = 0;  // per instance
  double mean_prompt_tokens = 0.0;
  double mean_output_tokens = 0.0;
  Objectives objectives;
};

// Requests per second at which evenly loaded instances run out of time per token, KV memory or rows
// with requests of mean length. Above what any policy bears: requests are not of mean length.
double estimate_rate(const RateEstimateInput& input);

}  // namespace nanocp::sim
