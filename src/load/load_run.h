// Sends a load to a server and records what became of each request. Requests of an open loop start
// when they are due, however slow the answers are; those of a closed loop when there is room.
//
// Threads: the caller's only watches. One makes the bodies ahead of time, so that this delays
// nobody; a few each run a loop with its share of the connections (http_client/client.h). All end
// before run() returns.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "http_client/client.h"
#include "load/latency_histogram.h"
#include "load/record.h"
#include "sim/metrics.h"
#include "sim/workload.h"

namespace nanocp::load {

struct LoadSetup {
  http_client::Options client;
  int num_threads = 2;
  // 0: open loop, requests come at their times. Else so many at a time, and times do not matter.
  int concurrency = 0;
  // Closed loop: none starts later. An open loop ends with its requests.
  int64_t duration_us = std::numeric_limits<int64_t>::max();
  int64_t warmup_us = 0;  // requests that are due before are not measured
  // The next request's length and time, or none. Called by the thread that makes bodies.
  std::function<std::optional<sim::Arrival>()> next;
  // The request itself; may correct its lengths. Called by the same thread.
  std::function<http_client::Request(int64_t index, sim::Arrival& lengths)> make;
};

struct LoadProgress {
  int64_t num_started = 0;
  int64_t num_ended = 0;
  int64_t num_failed = 0;
  int64_t num_tokens = 0;
  int64_t elapsed_us = 0;
};

// How late the client itself was; all of it is in the measured times or before them.
struct ClientLag {
  sim::Percentiles start_us;  // from when a request was due to when it was started (open loop)
  sim::Percentiles loop_us;   // of a task of each loop that is due every 10 ms
};

struct LoadResult {
  std::vector<RequestRecord> records;  // of all that were started, by index
  // Times between events that brought tokens, of measured requests that finished.
  LatencyHistogram itl;
  std::array<LatencyHistogram, sim::kNumClasses> itl_by_class;
  ClientLag lag;
  int64_t elapsed_us = 0;
  bool is_interrupted = false;
};

// Blocks until all requests have ended. `watch` is called about ten times a second; false
// interrupts the run: what is under way is cancelled. Fails only where the server's name is not
// known.
Result<LoadResult> run_load(const LoadSetup& setup,
                            const std::function<bool(const LoadProgress&)>& watch);

}  // namespace nanocp::load
