#include "model/load_jobs.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <system_error>
#include <thread>

namespace nanocp::model {
namespace {

constexpr int64_t kReportsMax = 200;

class ProgressReport {
 public:
  ProgressReport(const std::vector<LoadJob>& jobs, const ProgressFn& report) : report_(report) {
    for (const LoadJob& job : jobs) total_bytes_ += job.bytes;
  }

  void add(int64_t bytes) {
    if (!report_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    done_bytes_ += bytes;
    const bool is_due = done_bytes_ - reported_bytes_ > total_bytes_ / kReportsMax;
    if (!is_due && done_bytes_ != total_bytes_) return;
    reported_bytes_ = done_bytes_;
    report_(done_bytes_, total_bytes_);
  }

 private:
  const ProgressFn& report_;
  int64_t total_bytes_ = 0;  // constant after construction

  // Guarded by mutex_.
  std::mutex mutex_;
  int64_t done_bytes_ = 0;
  int64_t reported_bytes_ = 0;
};

}  // namespace

void run_load_jobs(const std::vector<LoadJob>& jobs, int num_threads, const ProgressFn& progress) {
  ProgressReport report(jobs, progress);
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < jobs.size(); i = next++) {
      jobs[i].run();
      report.add(jobs[i].bytes);
    }
  };
  std::vector<std::thread> threads;
  const auto wanted = std::min(static_cast<size_t>(std::max(num_threads, 1)), jobs.size());
  try {
    while (threads.size() + 1 < wanted) threads.emplace_back(work);
  } catch (const std::system_error&) {
    // The system grants no more threads: those that run do all the work.
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace nanocp::model
