// A fixed set of threads that run one loop at a time, for one owner. The owner's thread takes part,
// so a pool of one has no threads of its own and runs loops in place.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace nanocp {

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Calls body(begin, end) on parts of [0, count) that cover it, in no order, none smaller than
  // `grain` but the last, and returns when all are done. Only the owner may call, and not from
  // inside a body. Bodies do not wait for one another, so the return needs no deadline.
  void parallel_for(int64_t count, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  void work();
  void run_parts();

  // Constant after construction.
  const int num_threads_;
  std::vector<std::thread> threads_;

  // Own synchronisation; changed under mutex_ where a sleeper must not miss it.
  std::atomic<uint64_t> generation_{0};  // loops started
  std::atomic<int> num_running_{0};      // threads inside the present loop
  std::atomic<int64_t> next_{0};         // first index nobody has taken

  // Guarded by mutex_; body_, count_ and part_size_ stay as they are while num_running_ > 0.
  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable work_done_;
  const std::function<void(int64_t, int64_t)>* body_ = nullptr;
  int64_t count_ = 0;
  int64_t part_size_ = 0;
  bool stopping_ = false;
};

}  // namespace nanocp
