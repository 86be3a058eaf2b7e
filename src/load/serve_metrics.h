// The figures of a load, from its records. Plain data; pure functions, any thread.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include "load/load_run.h"
#include "load/record.h"
#include "sim/metrics.h"

namespace nanocp::load {

// A request is good if it finished and kept each of these.
struct ServeObjectives {
  double ttft_us = std::numeric_limits<double>::infinity();
  double tpot_us = std::numeric_limits<double>::infinity();
  double e2e_us = std::numeric_limits<double>::infinity();
  double percentile = 0.99;  // this share of requests shall be good
};
bool is_good(const RequestRecord& record, const ServeObjectives& objectives);

struct ServeClass {
  int64_t num_requests = 0;  // measured, without cancelled ones
  int64_t num_finished = 0;
  int64_t num_good = 0;
  int64_t num_prompt_tokens = 0;  // of those that finished
  int64_t num_output_tokens = 0;  // the same
  // Of those that finished.
  sim::Percentiles ttft_us;
  sim::Percentiles tpot_us;
  sim::Percentiles itl_us;
  sim::Percentiles e2e_us;

  double good_share() const {
    return num_requests == 0 ? 1.0
                             : static_cast<double>(num_good) / static_cast<double>(num_requests);
  }
};

struct ErrorCount {
  int64_t count = 0;
  std::string example;
};

struct ServeMetrics {
  ServeClass all;
  std::array<ServeClass, sim::kNumClasses> by_class;
  std::map<std::string, ErrorCount> errors;  // by kind
  int64_t num_cancelled = 0;
  int64_t num_unmeasured = 0;     // of the warm-up
  int64_t num_short = 0;          // finished with fewer tokens than were asked for
  int64_t num_without_usage = 0;  // finished, tokens counted by events
  double window_s = 0.0;          // from the first measured arrival to the last end
  double requests_per_s = 0.0;    // finished, over the window; so are the next three
  double output_tokens_per_s = 0.0;
  double total_tokens_per_s = 0.0;
  double goodput_per_s = 0.0;  // good requests
  double mean_running = 0.0;   // requests under way
  int64_t max_running = 0;

  bool meets(const ServeObjectives& objectives) const {
    return all.num_requests - all.num_good <=
           sim::Objectives{.percentile = objectives.percentile}.num_misses_allowed(
               all.num_requests);
  }
};

ServeMetrics compute_serve_metrics(const LoadResult& result, const ServeObjectives& objectives);

}  // namespace nanocp::load
