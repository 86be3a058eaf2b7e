// A client of raw bytes on a loopback socket, for tests: sends what it is told, however wrong, and
// reads with a deadline.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace nanocp::http {

class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer_bytes = 0) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    if (receive_buffer_bytes > 0) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes, sizeof(receive_buffer_bytes));
    }
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    is_open_ = connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
  }
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;
  TestClient(TestClient&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        is_open_(other.is_open_),
        read_(std::move(other.read_)) {}
  ~TestClient() { close(); }

  bool is_open() const { return is_open_; }
  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  // Ends the sending half alone.
  void shut_sending() { shutdown(fd_, SHUT_WR); }
  // Closes with a reset instead of an orderly end.
  void reset() {
    const linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close();
  }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t count = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (count <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(count));
    }
    return true;
  }

  // What has been read, once it holds `end`, the server has closed, or the time is up.
  const std::string& read_until(std::string_view end, double timeout_s = 10.0) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (read_.find(end) == std::string::npos && read_more(deadline)) {
    }
    return read_;
  }
  // All that comes before the server closes; is_open() tells whether it did in time.
  const std::string& read_all(double timeout_s = 10.0) {
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (read_more(deadline)) {
    }
    return read_;
  }
  // One answer with a Content-Length; what follows stays for the next call.
  std::string read_answer(double timeout_s = 10.0) {
    const std::string& head = read_until("\r\n\r\n", timeout_s);
    const size_t body = head.find("\r\n\r\n");
    const size_t field = head.find("Content-Length: ");
    if (body == std::string::npos || field > body) return std::exchange(read_, {});
    const size_t length = body + 4 + std::stoul(head.substr(field + 16));
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::duration<double>(timeout_s);
    while (read_.size() < length && read_more(deadline)) {
    }
    std::string answer = read_.substr(0, length);
    read_.erase(0, length);
    return answer;
  }
  void forget() { read_.clear(); }

 private:
  template <typename TimePoint>
  bool read_more(TimePoint deadline) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline - std::chrono::steady_clock::now());
    pollfd waited = {.fd = fd_, .events = POLLIN, .revents = 0};
    if (!is_open_ || left.count() <= 0 || poll(&waited, 1, static_cast<int>(left.count())) <= 0) {
      return false;
    }
    char buffer[65536];
    const ssize_t count = recv(fd_, buffer, sizeof(buffer), 0);
    if (count <= 0) {
      is_open_ = false;
      return false;
    }
    read_.append(buffer, static_cast<size_t>(count));
    return true;
  }

  int fd_ = -1;
  bool is_open_ = false;
  std::string read_;
};

}  // namespace nanocp::http
