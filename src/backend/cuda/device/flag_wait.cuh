// Epoch flags between GPUs that reach one another's memory: raising one, and waiting for one with a
// deadline. Flags are 64-bit counters that only grow; a wait is `flag >= epoch`. See
// comm/CONTRACT.md, comm.epochs and comm.waits.
#pragma once

#include <cstdint>

#include "backend/cuda/wait_report.h"

namespace nanocp::cuda::device {

// Raises a flag of another GPU (or the own one). Writes of this thread, and those that it has seen
// through a barrier or an acquire, are visible to whoever sees the flag.
__device__ inline void raise_flag(uint64_t* flag, uint64_t epoch) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(epoch) : "memory");
}

__device__ inline uint64_t read_flag(const uint64_t* flag) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
  return value;
}

__device__ inline uint64_t global_time_ns() {
  uint64_t value;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(value));
  return value;
}

__device__ inline bool is_aborted(const WaitControl& control) {
  return *static_cast<const volatile int32_t*>(control.abort_word) != 0;
}

// The abort word lies in host memory, and thousands of threads may wait.
constexpr uint32_t kSpinsToAbortWord = 1024;

// Polls until `poll()` returns at least `epoch`. Returns false when the group is aborted or the
// deadline has passed; the first wait to run out leaves its report and aborts the group. What
// follows a failed wait may compute on stale data, but must not fault: the host throws the step
// away.
template <typename Poll>
__device__ inline bool wait_until(uint64_t epoch, const WaitControl& control, WaitPurpose purpose,
                                  int32_t awaited, const Poll& poll) {
  if (poll() >= epoch) return true;
  const uint64_t deadline_ns = global_time_ns() + control.timeout_ns;
  for (uint32_t spins = 0;; ++spins) {
    const uint64_t seen = poll();
    if (seen >= epoch) return true;
    if (spins % kSpinsToAbortWord != kSpinsToAbortWord - 1) continue;
    if (is_aborted(control)) return false;
    if (global_time_ns() < deadline_ns) continue;
    if (atomicCAS_system(&control.report->state, 0, 1) == 0) {
      control.report->waiter = control.self;
      control.report->awaited = awaited;
      control.report->purpose = purpose;
      control.report->epoch = epoch;
      control.report->seen = seen;
      __threadfence_system();
      *static_cast<volatile int32_t*>(&control.report->state) = 2;
    }
    atomicCAS_system(control.abort_word, 0, 1);
    return false;
  }
}

// Called by one thread.
__device__ inline bool wait_for_flag(const uint64_t* flag, uint64_t epoch,
                                     const WaitControl& control, WaitPurpose purpose,
                                     int32_t awaited) {
  return wait_until(epoch, control, purpose, awaited, [flag] { return read_flag(flag); });
}

}  // namespace nanocp::cuda::device
