// `nanocp serve` on a free port, for as long as a test needs it.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "http/test_client.h"
#include "program.h"

namespace nanocp::tests {

struct HttpAnswer {
  int status = 0;
  std::string head;
  std::string body;
};

class ServedProgram {
 public:
  // Waits until it is ready; port() is 0 if that does not happen.
  explicit ServedProgram(std::vector<std::string> flags = {}) {
    flags.insert(flags.begin(), {"serve", "--port", "0"});
    thread_ = std::thread([this, flags = std::move(flags)] {
      ProgramResult result = run_program(
          flags, [this](int pid, const std::string& out) { return note_start(pid, out); });
      const std::scoped_lock lock(mutex_);
      result_ = std::move(result);
      has_ended_ = true;
      changed_.notify_all();
    });
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::minutes(2), [this] { return port_ != 0 || has_ended_; });
    EXPECT_NE(port_, 0) << result_.err;
  }
  ServedProgram(const ServedProgram&) = delete;
  ServedProgram& operator=(const ServedProgram&) = delete;
  ~ServedProgram() {
    if (!thread_.joinable()) return;
    send_signal(SIGKILL);
    thread_.join();
  }

  uint16_t port() const { return port_; }
  const std::string& summary() const { return summary_; }
  void send_signal(int signal) {
    const std::scoped_lock lock(mutex_);
    if (pid_ > 0 && !has_ended_) kill(pid_, signal);
  }
  // Waits for the end, which something else has asked for.
  ProgramResult join() {
    thread_.join();
    return result_;
  }
  ProgramResult stop() {
    send_signal(SIGTERM);
    return join();
  }

  http::TestClient client() const { return http::TestClient(port_); }
  static std::string request_text(const std::string& method, const std::string& path,
                                  const std::string& body, const std::string& headers = "") {
    return method + " " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers +
           "Content-Type: application/json\r\nConnection: close\r\nContent-Length: " +
           std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  HttpAnswer ask(const std::string& method, const std::string& path, const std::string& body = "",
                 const std::string& headers = "") const {
    http::TestClient client(port_);
    client.send(request_text(method, path, body, headers));
    return parse(client.read_all(60.0));
  }
  static HttpAnswer parse(const std::string& text) {
    HttpAnswer answer;
    const size_t end = text.find("\r\n\r\n");
    if (end == std::string::npos) return answer;
    answer.status = std::stoi(text.substr(9, 3));
    answer.head = text.substr(0, end + 2);
    answer.body = text.substr(end + 4);
    if (answer.head.find("chunked") != std::string::npos) answer.body = without_chunks(answer.body);
    return answer;
  }

 private:
  static std::string without_chunks(const std::string& text) {
    std::string body;
    for (size_t at = 0; at < text.size();) {
      const size_t line_end = text.find("\r\n", at);
      if (line_end == std::string::npos) break;
      const size_t length = std::stoul(text.substr(at, line_end - at), nullptr, 16);
      body += text.substr(line_end + 2, length);
      at = line_end + 2 + length + 2;
    }
    return body;
  }

  bool note_start(int pid, const std::string& out) {
    static const std::string kStart = "  API        http://127.0.0.1:";
    const size_t found = out.find(kStart);
    const bool is_ready =
        found != std::string::npos && out.find("/v1\n", found) != std::string::npos;
    const std::scoped_lock lock(mutex_);
    pid_ = pid;
    if (!is_ready) return false;
    summary_ = out;
    port_ = static_cast<uint16_t>(std::stoul(out.substr(found + kStart.size())));
    changed_.notify_all();
    return true;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int pid_ = 0;
  uint16_t port_ = 0;
  std::string summary_;
  ProgramResult result_;
  bool has_ended_ = false;
  std::thread thread_;
};

}  // namespace nanocp::tests
