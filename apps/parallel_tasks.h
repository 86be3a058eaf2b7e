// Independent tasks of a command on several threads. Owns its threads; they have ended when the
// call returns.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace nanocp::apps {

// Calls task(i) for i in [0, count), each once, on up to num_threads threads.
// Requires: tasks may run at the same time; none throws.
template <typename Task>
void run_tasks(size_t count, size_t num_threads, const Task& task) {
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < count; i = next++) task(i);
  };
  std::vector<std::jthread> threads;
  for (size_t i = 1; i < std::min(count, num_threads); ++i) threads.emplace_back(work);
  work();
}

}  // namespace nanocp::apps
