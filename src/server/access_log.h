// One JSON line for each HTTP request that was answered: who asked for what, how long it took and
// how it ended; never what was asked or answered, and no keys. Lines go through a bounded queue to
// a thread that writes them, so that nobody waits for a disk; what does not fit is counted, and the
// count is a line of its own. A file that was moved away is opened anew (log rotation).
#pragma once

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.h"

namespace nanocp::server {

// Numbers below 0, empty words and false are left out.
struct AccessEntry {
  int64_t unix_time_us = 0;  // of the answer's end
  std::string request_id;
  std::string client;  // address and port
  std::string method;
  std::string path;
  int status = 0;
  double duration_s = -1.0;
  bool is_cut_off = false;  // by the client or a deadline
  // Of generation.
  std::string model;
  int64_t num_prompt_tokens = -1;
  int64_t num_output_tokens = -1;
  double first_token_s = -1.0;  // since arrival
  int64_t degree = -1;          // instances that held its KV cache
  std::string finish_reason;
};

// {"time":"2026-01-02T03:04:05.678Z", ...} and a newline.
std::string access_line(const AccessEntry& entry);

class AccessLog {
 public:
  static constexpr size_t kQueuedMax = 4096;

  // Lines are added to the end of `file`; "-" is standard output.
  static Result<std::unique_ptr<AccessLog>> open(const std::string& file);
  ~AccessLog();  // finish()
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  // Any thread; does not wait for the file.
  void write(const AccessEntry& entry);
  // Writes what is queued; what comes later is not written. One thread.
  void finish();
  uint64_t num_dropped() const;

 private:
  AccessLog(std::string file, FILE* stream);
  void run();
  void write_lines(const std::deque<std::string>& lines);
  void reopen_if_moved();

  const std::string file_;
  FILE* stream_;                 // the thread's; stdout is not closed
  bool has_complained_ = false;  // the thread's
  mutable std::mutex mutex_;
  std::condition_variable has_lines_;
  std::deque<std::string> lines_;  // this and what follows: guarded by mutex_
  uint64_t num_dropped_ = 0;
  uint64_t num_dropped_since_ = 0;  // the last line about it
  bool stops_ = false;
  std::thread thread_;
};

}  // namespace nanocp::server
