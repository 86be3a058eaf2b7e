// A line on stderr that shows how far loading is. Shows nothing where stderr is no terminal.
// One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace nanocp::apps {

class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar() { finish(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void update(int64_t done_bytes, int64_t total_bytes);
  // Removes the line.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  bool enabled_;
  bool shown_ = false;
  Clock::time_point last_draw_;
};

}  // namespace nanocp::apps
