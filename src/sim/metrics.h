// What became of the requests of a simulation, against service-level objectives. Plain data; pure
// functions, any thread.
//
// TPOT of a request is the time from the start of its first decode step to its last token, divided
// by its output tokens; its queueing delay is the time from its arrival to that start.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/workload.h"

namespace nanocp::sim {

// Classes of prompt lengths, reported apart since a percentile over all hides starved long ones.
constexpr int kNumClasses = 3;
constexpr std::array<std::string_view, kNumClasses> kClassNames = {"below 8k", "8k to 64k",
                                                                   "above 64k"};
int length_class(int64_t num_prompt_tokens);

struct RequestRecord {
  Arrival arrival;
  int64_t start_us = -1;   // of its first step that gave a token; -1: none yet
  int64_t finish_us = -1;  // -1: not finished
  int64_t num_tokens = 0;  // sampled so far
  int32_t degree = 0;      // instances that held its KV at the end
  int32_t num_preemptions = 0;
  bool is_refused = false;    // can never fit
  bool is_cancelled = false;  // by its client; no objective applies to it
  bool is_measured = true;    // false during the warm-up

  bool is_finished() const { return finish_us >= 0; }
  double queue_us() const { return static_cast<double>(start_us - arrival.time_us); }
  // Requires: is_finished().
  double tpot_us() const {
    return static_cast<double>(finish_us - start_us) / static_cast<double>(num_tokens);
  }
};

struct Objectives {
  double tpot_us = 50'000.0;
  double queue_us = 10'000'000.0;
  double percentile = 0.99;  // this share of requests keeps each of them

  // How many of `count` requests may miss one.
  int64_t num_misses_allowed(int64_t count) const;
};

struct Percentiles {
  double mean = 0.0;
  double p50 = 0.0;
  double p90 = 0.0;
  double p99 = 0.0;
  double max = 0.0;
};
// Nearest rank; zeros for an empty list.
Percentiles percentiles(std::vector<double> values);

struct ClassMetrics {
  int64_t num_requests = 0;
  int64_t num_refused = 0;
  int64_t num_unfinished = 0;
  Percentiles tpot_us;          // of those that finished
  Percentiles queue_us;         // of those that started
  int64_t num_tpot_misses = 0;  // refused and unfinished requests miss too
  int64_t num_queue_misses = 0;
  std::vector<int64_t> num_by_degree;  // [largest degree + 1] finished requests
};

struct Metrics {
  ClassMetrics all;
  std::array<ClassMetrics, kNumClasses> by_class;
  int64_t num_preemptions = 0;
  int64_t num_cancelled = 0;  // counted nowhere else

  // Share of requests that keep the TPOT objective.
  double attainment() const;
  // TPOT holds for all and for each class, queueing delay for all.
  bool meets(const Objectives& objectives) const { return missed(objectives).empty(); }
  // The objective that is missed, in words; empty: none. Of several, the one that the load cannot
  // cure comes first: refused requests, then TPOT by class, unfinished requests, queueing.
  std::string missed(const Objectives& objectives) const;
};

// "TPOT of prompts below 8k", as missed() says it.
std::string tpot_objective_name(int length_class);
constexpr std::string_view kRefusedName = "refused requests";
constexpr std::string_view kUnfinishedName = "unfinished requests";
constexpr std::string_view kQueueName = "queueing delay";

// Of the measured requests.
Metrics compute_metrics(std::span<const RequestRecord> records, const Objectives& objectives);

}  // namespace nanocp::sim
