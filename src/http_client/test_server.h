// For tests: a server on a loopback port whose answers are a script, a thread per connection. The
// script writes the bytes of the answer itself, so that it can also write wrong ones. Scripts run
// on several threads at once.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace nanocp::http_client {

class TestServer {
 public:
  // One request, and the connection to answer it on.
  class Call {
   public:
    std::string head;  // request line and headers
    std::string body;
    int index = 0;  // of all requests
    int index_on_connection = 0;

    std::string target() const {
      const size_t begin = head.find(' ') + 1;
      return head.substr(begin, head.find(' ', begin) - begin);
    }
    void send(std::string_view bytes) const {
      while (!bytes.empty()) {
        const ssize_t count = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (count <= 0) return;  // the client has gone
        bytes.remove_prefix(static_cast<size_t>(count));
      }
    }
    void send_chunk(std::string_view bytes) const {
      char size[32];
      std::snprintf(size, sizeof size, "%zx\r\n", bytes.size());
      send(std::string(size).append(bytes).append("\r\n"));
    }
    void begin_stream() const {
      send(
          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: "
          "chunked\r\n\r\n");
    }
    void end_stream() const { send("0\r\n\r\n"); }
    void answer(int status, std::string_view type, std::string_view content) const {
      std::string text = "HTTP/1.1 " + std::to_string(status) + " Status\r\nContent-Type: ";
      text.append(type).append("\r\nContent-Length: ").append(std::to_string(content.size()));
      send(text.append("\r\n\r\n").append(content));
    }
    // Waits; ends early when the server is taken down.
    void wait_ms(int milliseconds) const {
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
      while (!server_->is_over_ && std::chrono::steady_clock::now() < end) {
        const auto left = end - std::chrono::steady_clock::now();
        std::this_thread::sleep_for(
            std::min<std::chrono::nanoseconds>(left, std::chrono::milliseconds(20)));
      }
    }
    // True once the client has closed its side.
    bool wait_for_close(int milliseconds) const {
      pollfd wait{.fd = socket_, .events = POLLIN, .revents = 0};
      char byte = 0;
      return ::poll(&wait, 1, milliseconds) > 0 && ::recv(socket_, &byte, 1, MSG_PEEK) <= 0;
    }
    void close() { is_closed_ = true; }

   private:
    friend class TestServer;
    int socket_ = -1;
    TestServer* server_ = nullptr;
    bool is_closed_ = false;
  };
  using Script = std::function<void(Call&)>;

  explicit TestServer(Script script) : script_(std::move(script)) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_, plain, size) != 0 || ::listen(listener_, 1024) != 0 ||
        ::getsockname(listener_, plain, &size) != 0) {
      throw std::runtime_error("no loopback port for a test server");
    }
    port_ = ntohs(address.sin_port);
    accepter_ = std::thread([this] { accept_all(); });
  }
  ~TestServer() {
    is_over_ = true;
    accepter_.join();
    for (std::thread& thread : threads_) thread.join();
    ::close(listener_);
  }
  TestServer(const TestServer&) = delete;
  TestServer& operator=(const TestServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int num_requests() const { return num_requests_; }
  int num_connections() const { return num_connections_; }

 private:
  static constexpr int kPollMs = 20;

  void accept_all() {
    while (!is_over_) {
      pollfd wait{.fd = listener_, .events = POLLIN, .revents = 0};
      if (::poll(&wait, 1, kPollMs) <= 0) continue;
      const int socket = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) continue;
      const int is_on = 1;  // what a script sends apart shall arrive apart
      ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &is_on, sizeof is_on);
      ++num_connections_;
      threads_.emplace_back([this, socket] { serve(socket); });
    }
  }

  void serve(int socket) {
    std::string bytes;
    for (int i = 0; !is_over_; ++i) {
      Call call;
      call.socket_ = socket;
      call.server_ = this;
      call.index_on_connection = i;
      if (!read_request(socket, bytes, call)) break;
      call.index = num_requests_++;
      script_(call);
      if (call.is_closed_) break;
    }
    ::close(socket);
  }

  bool read_request(int socket, std::string& bytes, Call& call) const {
    size_t end = 0;
    while ((end = bytes.find("\r\n\r\n")) == std::string::npos) {
      if (!read_more(socket, bytes)) return false;
    }
    call.head = bytes.substr(0, end);
    const size_t length = call.head.find("Content-Length: ");
    const size_t size = length == std::string::npos ? 0 : std::stoul(call.head.substr(length + 16));
    while (bytes.size() < end + 4 + size) {
      if (!read_more(socket, bytes)) return false;
    }
    call.body = bytes.substr(end + 4, size);
    bytes.erase(0, end + 4 + size);
    return true;
  }

  bool read_more(int socket, std::string& bytes) const {
    while (!is_over_) {
      pollfd wait{.fd = socket, .events = POLLIN, .revents = 0};
      if (::poll(&wait, 1, kPollMs) <= 0) continue;
      char buffer[16384];
      const ssize_t count = ::recv(socket, buffer, sizeof buffer, 0);
      if (count <= 0) return false;
      bytes.append(buffer, static_cast<size_t>(count));
      return true;
    }
    return false;
  }

  Script script_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> is_over_{false};
  std::atomic<int> num_requests_{0};
  std::atomic<int> num_connections_{0};
  std::thread accepter_;
  std::vector<std::thread> threads_;  // of accepter_ until it has ended
};

}  // namespace nanocp::http_client
