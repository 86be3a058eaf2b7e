// One loop of a load with its share of the requests: inside of run_load.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "http_client/client.h"
#include "load/latency_histogram.h"
#include "load/load_run.h"
#include "load/record.h"

namespace nanocp::load {

// What all workers of a run share. Any thread.
struct RunState {
  int64_t origin_us = 0;  // of SteadyClock; constant once workers run
  std::atomic<bool> is_stopping{false};
  std::atomic<int64_t> num_started{0};
  std::atomic<int64_t> num_failed{0};
  std::atomic<int64_t> num_tokens{0};

  virtual ~RunState() = default;
  virtual void on_request_end() = 0;
};

struct PendingRequest {
  http_client::Request request;
  sim::Arrival arrival;
  int64_t index = 0;
  int64_t warmup_us = 0;
  bool is_due = false;  // at arrival.time_us; else at once
};

class Worker {
 public:
  Worker(RunState& run, const http_client::Options& options);

  http_client::Client& client() { return client_; }
  // Owner's thread. join() ends the loop, cancelling what is under way.
  void start();
  void join();
  // Any thread.
  void hand_over(std::shared_ptr<PendingRequest> pending);
  // After join().
  void collect(LoadResult& result, LatencyHistogram& loop_lag);

 private:
  class Stream;

  // All in the loop.
  void begin(PendingRequest& pending);
  void end(RequestRecord record, const std::vector<float>& itl_us);
  void tick(int64_t due_us);

  RunState& run_;
  http_client::Client client_;
  std::thread thread_;
  // Of the loop's thread until it has ended.
  std::vector<RequestRecord> records_;
  LatencyHistogram itl_;
  std::array<LatencyHistogram, sim::kNumClasses> itl_by_class_;
  LatencyHistogram loop_lag_;
};

}  // namespace nanocp::load
