#include "apps/interrupt.h"

#include <semaphore.h>

#include <cerrno>
#include <cmath>
#include <csignal>
#include <ctime>

namespace nanocp::apps {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;
sem_t g_wakes;  // posted by the signal, whatever thread gets it

void on_signal(int signal_number) {
  g_interrupted = 1;
  sem_post(&g_wakes);
  std::signal(signal_number, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
  sem_init(&g_wakes, 0, 0);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}

InterruptGuard::~InterruptGuard() {
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

bool InterruptGuard::interrupted() const {
  return g_interrupted != 0;
}

bool InterruptGuard::wait(double timeout_s) const {
  timespec deadline = {};
  clock_gettime(CLOCK_REALTIME, &deadline);
  const double whole_s = std::floor(timeout_s);
  deadline.tv_sec += static_cast<time_t>(whole_s);
  deadline.tv_nsec += static_cast<long>((timeout_s - whole_s) * 1e9);
  deadline.tv_sec += deadline.tv_nsec / 1'000'000'000;
  deadline.tv_nsec %= 1'000'000'000;
  while (!interrupted()) {
    if (sem_timedwait(&g_wakes, &deadline) != 0 && errno != EINTR) break;
  }
  return interrupted();
}

}  // namespace nanocp::apps
