#include "load/load_run.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/clock.h"
#include "load/load_worker.h"

namespace nanocp::load {
namespace {

constexpr int64_t kLeadUs = 1'000'000;     // bodies are made so long ahead
constexpr int64_t kFirstLeadUs = 100'000;  // of the first, before the run begins
constexpr auto kWatchInterval = std::chrono::milliseconds(100);

std::chrono::steady_clock::time_point time_point(int64_t time_us) {
  return std::chrono::steady_clock::time_point(std::chrono::microseconds(time_us));
}

class Run final : public RunState {
 public:
  explicit Run(const LoadSetup& setup) : setup_(setup) {
    origin_us = SteadyClock().now_us() + kFirstLeadUs;
    for (int i = 0; i < setup.num_threads; ++i) {
      workers_.push_back(std::make_unique<Worker>(*this, setup.client));
    }
  }

  Status resolve() {
    for (const auto& worker : workers_) NANOCP_RETURN_IF_ERROR(worker->client().resolve());
    return ok_status();
  }

  LoadResult run(const std::function<bool(const LoadProgress&)>& watch) {
    for (const auto& worker : workers_) worker->start();
    std::thread maker([this] { make_all(); });
    const bool is_interrupted = !wait_for_end(watch);
    if (is_interrupted) cancel_all();
    maker.join();
    for (const auto& worker : workers_) worker->join();
    return collect(is_interrupted);
  }

 private:
  void on_request_end() override {
    // Under the lock, so that nobody misses it between a look and a wait.
    const std::lock_guard lock(mutex_);
    ++num_ended_;
    changed_.notify_all();
  }

  // The maker's thread.
  void make_all() {
    for (int64_t index = 0;; ++index) {
      std::optional<sim::Arrival> arrival = setup_.next();
      if (!arrival) break;
      const int64_t due_us = arrival->time_us;
      if (setup_.concurrency == 0 && !wait_until(origin_us + due_us - kLeadUs)) break;
      auto pending = std::make_shared<PendingRequest>();
      pending->request = setup_.make(index, *arrival);
      pending->arrival = *arrival;
      pending->arrival.time_us = due_us;
      pending->index = index;
      pending->warmup_us = setup_.warmup_us;
      pending->is_due = setup_.concurrency == 0;
      if (!pending->is_due && !(wait_until(origin_us) && wait_for_room())) break;
      {
        const std::lock_guard lock(mutex_);
        ++num_handed_out_;
      }
      workers_[static_cast<size_t>(index) % workers_.size()]->hand_over(std::move(pending));
    }
    const std::lock_guard lock(mutex_);
    is_made_ = true;
    changed_.notify_all();
  }

  // False: the run was interrupted.
  bool wait_until(int64_t time_us) {
    std::unique_lock lock(mutex_);
    changed_.wait_until(lock, time_point(time_us), [this] { return is_stopping.load(); });
    return !is_stopping;
  }

  // False: the run was interrupted, or its time is over.
  bool wait_for_room() {
    const bool has_end = setup_.duration_us < std::numeric_limits<int64_t>::max() / 2;
    const auto end = time_point(has_end ? origin_us + setup_.duration_us : 0);
    const auto is_ready = [this] {
      return is_stopping || num_handed_out_ - num_ended_ < setup_.concurrency;
    };
    std::unique_lock lock(mutex_);
    if (!has_end) {
      changed_.wait(lock, is_ready);  // each request under way has a deadline
      return !is_stopping;
    }
    changed_.wait_until(lock, end, is_ready);
    return !is_stopping && std::chrono::steady_clock::now() < end;
  }

  // The caller's thread. False: it wants to stop.
  bool wait_for_end(const std::function<bool(const LoadProgress&)>& watch) {
    std::unique_lock lock(mutex_);
    while (!(is_made_ && num_ended_ == num_handed_out_)) {
      changed_.wait_for(lock, kWatchInterval);
      const auto now = std::chrono::steady_clock::now();
      if (now - last_watch_ < kWatchInterval) continue;
      last_watch_ = now;
      const LoadProgress progress = {.num_started = num_started,
                                     .num_ended = num_ended_,
                                     .num_failed = num_failed,
                                     .num_tokens = num_tokens,
                                     .elapsed_us = SteadyClock().now_us() - origin_us};
      lock.unlock();
      const bool goes_on = watch(progress);
      lock.lock();
      if (!goes_on) return false;
    }
    return true;
  }

  void cancel_all() {
    const std::lock_guard lock(mutex_);
    is_stopping = true;
    changed_.notify_all();
  }

  LoadResult collect(bool is_interrupted) {
    LoadResult result;
    result.is_interrupted = is_interrupted;
    LatencyHistogram loop_lag;
    for (const auto& worker : workers_) worker->collect(result, loop_lag);
    std::sort(result.records.begin(), result.records.end(),
              [](const auto& a, const auto& b) { return a.index < b.index; });
    std::vector<double> late_us;
    for (const RequestRecord& record : result.records) {
      result.elapsed_us = std::max(result.elapsed_us, record.end_us);
      late_us.push_back(static_cast<double>(record.start_us - record.arrival_us));
    }
    result.lag.start_us = sim::percentiles(std::move(late_us));
    result.lag.loop_us = loop_lag.percentiles();
    return result;
  }

  const LoadSetup& setup_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  int64_t num_handed_out_ = 0;
  int64_t num_ended_ = 0;
  bool is_made_ = false;
  std::chrono::steady_clock::time_point last_watch_;  // of the caller's thread
};

}  // namespace

Result<LoadResult> run_load(const LoadSetup& setup,
                            const std::function<bool(const LoadProgress&)>& watch) {
  Run run(setup);
  NANOCP_RETURN_IF_ERROR(run.resolve());
  return run.run(watch);
}

}  // namespace nanocp::load
