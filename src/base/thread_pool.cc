#include "base/thread_pool.h"

#include <algorithm>

#include "base/check.h"

namespace nanocp {
namespace {

// Loops follow one another within microseconds; going to sleep in between would cost more than most
// of them take. About 20 us, then the thread sleeps.
constexpr int kSpins = 400;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

template <typename Condition>
void spin_until(const Condition& condition) {
  for (int i = 0; i < kSpins && !condition(); ++i) pause_briefly();
}

}  // namespace

ThreadPool::ThreadPool(int num_threads) : num_threads_(std::max(1, num_threads)) {
  threads_.reserve(static_cast<size_t>(num_threads_ - 1));
  for (int i = 1; i < num_threads_; ++i) threads_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  for (auto& thread : threads_) thread.join();
}

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  grain = std::max<int64_t>(1, grain);
  if (num_threads_ == 1 || count <= grain) {
    body(0, count);
    return;
  }
  // About four parts per thread level out parts of unequal cost.
  const int64_t wanted_parts = int64_t{16} * num_threads_;
  {
    std::lock_guard lock(mutex_);
    NANOCP_CHECK(body_ == nullptr);
    body_ = &body;
    count_ = count;
    part_size_ = std::max(grain, (count + wanted_parts - 1) / wanted_parts);
    next_.store(0);
    num_running_.store(1);
    generation_.fetch_add(1);
  }
  work_ready_.notify_all();
  run_parts();
  num_running_.fetch_sub(1);
  spin_until([this] { return num_running_.load() == 0; });
  std::unique_lock lock(mutex_);
  work_done_.wait(lock, [this] { return num_running_.load() == 0; });
  body_ = nullptr;
}

void ThreadPool::run_parts() {
  while (true) {
    const int64_t begin = next_.fetch_add(part_size_);
    if (begin >= count_) return;
    (*body_)(begin, std::min(count_, begin + part_size_));
  }
}

void ThreadPool::work() {
  uint64_t seen = 0;
  while (true) {
    spin_until([&] { return generation_.load() != seen; });
    std::unique_lock lock(mutex_);
    // Ends with the owner: the destructor wakes it.
    work_ready_.wait(lock, [&] { return stopping_ || generation_.load() != seen; });
    if (stopping_) return;
    seen = generation_.load();
    if (body_ == nullptr) continue;  // the loop was over before this thread woke
    num_running_.fetch_add(1);
    lock.unlock();
    run_parts();
    lock.lock();
    if (num_running_.fetch_sub(1) == 1) work_done_.notify_one();
  }
}

}  // namespace nanocp
