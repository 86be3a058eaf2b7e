// Independent pieces of loading work (reading pages in, transposing, filling), run by threads.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace nanocp::model {

struct LoadJob {
  int64_t bytes = 0;          // for progress
  std::function<void()> run;  // does not throw; touches nothing that another job writes
};

// Called from one thread at a time, with done_bytes growing up to total_bytes.
using ProgressFn = std::function<void(int64_t done_bytes, int64_t total_bytes)>;

// Returns when all are done. Takes the jobs in order on up to `num_threads` threads, the caller's
// included. `progress` may be empty.
void run_load_jobs(const std::vector<LoadJob>& jobs, int num_threads, const ProgressFn& progress);

}  // namespace nanocp::model
