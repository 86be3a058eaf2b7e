#include "server/access_log.h"

#include <sys/stat.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

namespace nanocp::server {
namespace {

std::string utc_time(int64_t unix_time_us) {
  const std::time_t seconds = unix_time_us / 1'000'000;
  std::tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[40];
  const size_t length = std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text + length, sizeof(text) - length, ".%03dZ",
                static_cast<int>(unix_time_us / 1000 % 1000));
  return text;
}

std::string json_line(const nlohmann::ordered_json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string access_line(const AccessEntry& entry) {
  nlohmann::ordered_json line = {{"time", utc_time(entry.unix_time_us)},
                                 {"request_id", entry.request_id},
                                 {"client", entry.client},
                                 {"method", entry.method},
                                 {"path", entry.path},
                                 {"status", entry.status}};
  const auto add_ms = [&line](const char* name, double seconds) {
    if (seconds >= 0.0) line[name] = std::round(seconds * 1e6) * 1e-3;
  };
  const auto add_count = [&line](const char* name, int64_t count) {
    if (count >= 0) line[name] = count;
  };
  add_ms("duration_ms", entry.duration_s);
  if (entry.is_cut_off) line["cut_off"] = true;
  if (!entry.model.empty()) line["model"] = entry.model;
  add_count("prompt_tokens", entry.num_prompt_tokens);
  add_count("output_tokens", entry.num_output_tokens);
  add_ms("ttft_ms", entry.first_token_s);
  add_count("degree", entry.degree);
  if (!entry.finish_reason.empty()) line["finish_reason"] = entry.finish_reason;
  return json_line(line);
}

Result<std::unique_ptr<AccessLog>> AccessLog::open(const std::string& file) {
  FILE* stream = file == "-" ? stdout : std::fopen(file.c_str(), "ae");
  if (stream == nullptr) {
    return invalid_argument("access log " + file + ": " + std::strerror(errno) +
                            ": name a file that can be written, or - for standard output");
  }
  return std::unique_ptr<AccessLog>(new AccessLog(file, stream));
}

AccessLog::AccessLog(std::string file, FILE* stream)
    : file_(std::move(file)), stream_(stream), thread_([this] { run(); }) {}

AccessLog::~AccessLog() {
  finish();
  if (stream_ != stdout) std::fclose(stream_);
}

void AccessLog::finish() {
  {
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  has_lines_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void AccessLog::write(const AccessEntry& entry) {
  std::string line = access_line(entry);
  {
    const std::lock_guard lock(mutex_);
    if (lines_.size() >= kQueuedMax) {
      ++num_dropped_;
      ++num_dropped_since_;
      return;
    }
    lines_.push_back(std::move(line));
  }
  has_lines_.notify_one();
}

uint64_t AccessLog::num_dropped() const {
  const std::lock_guard lock(mutex_);
  return num_dropped_;
}

void AccessLog::run() {
  for (;;) {
    std::deque<std::string> lines;
    {
      std::unique_lock lock(mutex_);
      has_lines_.wait(lock, [this] { return stops_ || !lines_.empty(); });
      if (lines_.empty()) return;
      lines.swap(lines_);
      const uint64_t num_dropped = std::exchange(num_dropped_since_, 0);
      if (num_dropped > 0) lines.push_back(json_line({{"dropped_lines", num_dropped}}));
    }
    write_lines(lines);
  }
}

void AccessLog::write_lines(const std::deque<std::string>& lines) {
  reopen_if_moved();
  bool is_written = true;
  for (const std::string& line : lines) {
    is_written &= std::fwrite(line.data(), 1, line.size(), stream_) == line.size();
  }
  is_written &= std::fflush(stream_) == 0;
  if (!is_written && !has_complained_) {
    std::fprintf(stderr, "warning: access log %s: %s; lines are lost\n", file_.c_str(),
                 std::strerror(errno));
  }
  has_complained_ = !is_written;
}

void AccessLog::reopen_if_moved() {
  if (stream_ == stdout) return;
  struct stat named = {};
  struct stat opened = {};
  const bool is_there = stat(file_.c_str(), &named) == 0;
  if (is_there && fstat(fileno(stream_), &opened) == 0 && named.st_ino == opened.st_ino &&
      named.st_dev == opened.st_dev) {
    return;
  }
  FILE* stream = std::fopen(file_.c_str(), "ae");
  if (stream == nullptr) return;  // the old one goes on
  std::fclose(stream_);
  stream_ = stream;
}

}  // namespace nanocp::server
