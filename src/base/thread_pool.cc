#include "base/thread_pool.h"

#include <algorithm>

#include "base/check.h"

namespace nanocp {

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
  const int64_t wanted_parts = int64_t{4} * num_threads_;
  std::unique_lock lock(mutex_);
  NANOCP_CHECK(body_ == nullptr);
  body_ = &body;
  count_ = count;
  part_size_ = std::max(grain, (count + wanted_parts - 1) / wanted_parts);
  next_ = 0;
  ++generation_;
  work_ready_.notify_all();
  run_parts(lock);
  work_done_.wait(lock, [this] { return num_running_ == 0; });
  body_ = nullptr;
}

void ThreadPool::run_parts(std::unique_lock<std::mutex>& lock) {
  ++num_running_;
  while (next_ < count_) {
    const int64_t begin = next_;
    const int64_t end = std::min(count_, begin + part_size_);
    next_ = end;
    lock.unlock();
    (*body_)(begin, end);
    lock.lock();
  }
  --num_running_;
}

void ThreadPool::work() {
  std::unique_lock lock(mutex_);
  uint64_t seen = 0;
  while (true) {
    // Ends with the owner: the destructor wakes it.
    work_ready_.wait(lock, [&] { return stopping_ || generation_ != seen; });
    if (stopping_) return;
    seen = generation_;
    if (body_ == nullptr) continue;
    run_parts(lock);
    if (num_running_ == 0) work_done_.notify_one();
  }
}

}  // namespace nanocp
