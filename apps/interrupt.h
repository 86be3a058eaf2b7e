// Ctrl-C as a question instead of a sudden death: loops ask whether to stop and end cleanly.
#pragma once

namespace nanocp::apps {

// While it lives, the first SIGINT or SIGTERM only sets a flag; a second one kills the process.
// At most one at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  bool interrupted() const;
  // Waits for the signal; false when it has not come in time.
  bool wait(double timeout_s) const;
};

// What shells expect of a process that SIGINT ended.
constexpr int kInterruptedExitCode = 130;

}  // namespace nanocp::apps
