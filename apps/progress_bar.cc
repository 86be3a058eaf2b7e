#include "apps/progress_bar.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace nanocp::apps {
namespace {

constexpr int kWidth = 30;
constexpr auto kRedrawInterval = std::chrono::milliseconds(50);

constexpr double kShareMin = 0.02;  // before, the time left is anybody's guess

// ", 3 min 20 s left" or nothing.
std::string time_left(std::chrono::duration<double> elapsed, double share) {
  if (share < kShareMin || share >= 1.0 || elapsed.count() < 2.0) return "";
  const auto seconds = static_cast<int64_t>(elapsed.count() * (1.0 - share) / share);
  std::string text = ", ";
  if (seconds >= 3600) text += std::to_string(seconds / 3600) + " h ";
  if (seconds >= 60) text += std::to_string(seconds / 60 % 60) + " min ";
  return text + std::to_string(seconds % 60) + " s left";
}

}  // namespace

ProgressBar::ProgressBar(std::string label, Unit unit)
    : label_(std::move(label)), unit_(unit), enabled_(isatty(STDERR_FILENO) == 1) {}

void ProgressBar::update(int64_t num_done, int64_t num_total, const std::string& note) {
  if (!enabled_ || num_total <= 0) return;
  const auto now = Clock::now();
  if (shown_ && num_done < num_total && now - last_draw_ < kRedrawInterval) return;
  last_draw_ = now;
  shown_ = true;
  const double share =
      std::clamp(static_cast<double>(num_done) / static_cast<double>(num_total), 0.0, 1.0);
  const auto filled = static_cast<size_t>(share * kWidth);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f%%", label_.c_str(), bar.c_str(), share * 100.0);
  if (unit_ == Unit::kBytes) {
    std::fprintf(stderr, " of %.0f MiB", static_cast<double>(num_total) / (1 << 20));
  }
  if (!note.empty()) std::fprintf(stderr, ", %s", note.c_str());
  std::fputs(time_left(now - start_, share).c_str(), stderr);
  std::fflush(stderr);
}

void ProgressBar::finish() {
  if (!shown_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace nanocp::apps
