// A line on stderr that shows how far something is, and when it will be over. Shows nothing where
// stderr is no terminal. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace nanocp::apps {

class ProgressBar {
 public:
  enum class Unit { kBytes, kNone };  // kNone: only the share is shown

  explicit ProgressBar(std::string label, Unit unit = Unit::kBytes);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // `note` comes behind the share.
  void update(int64_t num_done, int64_t num_total, const std::string& note = "");
  // Removes the line.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  Unit unit_;
  bool enabled_;
  Clock::time_point start_ = Clock::now();
  bool shown_ = false;
  Clock::time_point last_draw_;
};

}  // namespace nanocp::apps
