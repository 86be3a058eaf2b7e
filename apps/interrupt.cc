#include "apps/interrupt.h"

#include <csignal>

namespace nanocp::apps {
namespace {

volatile std::sig_atomic_t g_interrupted = 0;

void on_signal(int signal_number) {
  g_interrupted = 1;
  std::signal(signal_number, SIG_DFL);
}

}  // namespace

InterruptGuard::InterruptGuard() {
  g_interrupted = 0;
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

}  // namespace nanocp::apps
