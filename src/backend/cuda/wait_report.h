// What host and kernels share about waits between instances: the abort word that ends them all, and
// the report of the first that ran out. Both lie in pinned host memory that all GPUs of the process
// can reach; owned by the runner's exchange group.
#pragma once

#include <cstdint>

namespace nanocp::cuda {

enum class WaitPurpose : int32_t { kQuery, kPartial, kDispatch, kCombine };

inline const char* to_string(WaitPurpose purpose) {
  switch (purpose) {
    case WaitPurpose::kQuery:
      return "query";
    case WaitPurpose::kPartial:
      return "partial output";
    case WaitPurpose::kDispatch:
      return "dispatch";
    case WaitPurpose::kCombine:
      return "combine";
  }
  return "unknown";
}

struct WaitReport {
  int32_t state;  // 0 none, 1 being written, 2 complete
  int32_t waiter;
  int32_t awaited;
  WaitPurpose purpose;
  uint64_t epoch;
  uint64_t seen;  // the flag's value when the wait ran out
};

// By value in kernel parameters.
struct WaitControl {
  int32_t* abort_word;  // host memory; not 0: end all waits
  WaitReport* report;   // host memory
  uint64_t timeout_ns;  // of one wait
  int32_t self;         // this instance
};

}  // namespace nanocp::cuda
