#include "apps/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace nanocp::apps {
namespace {

constexpr int kWidth = 30;
constexpr auto kRedrawInterval = std::chrono::milliseconds(50);

double to_mib(int64_t size_bytes) {
  return static_cast<double>(size_bytes) / (1 << 20);
}

}  // namespace

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), enabled_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::update(int64_t done_bytes, int64_t total_bytes) {
  if (!enabled_ || total_bytes <= 0) return;
  const auto now = Clock::now();
  if (shown_ && done_bytes < total_bytes && now - last_draw_ < kRedrawInterval) return;
  last_draw_ = now;
  shown_ = true;
  const double share =
      std::clamp(static_cast<double>(done_bytes) / static_cast<double>(total_bytes), 0.0, 1.0);
  const auto filled = static_cast<size_t>(share * kWidth);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f%% of %.0f MiB", label_.c_str(), bar.c_str(),
               share * 100.0, to_mib(total_bytes));
  std::fflush(stderr);
}

void ProgressBar::finish() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace nanocp::apps
