#include "http_client/client.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <unordered_map>

#include "http_client/exchange.h"

namespace nanocp::http_client {

const char* to_string(End end) {
  switch (end) {
    case End::kComplete:
      return "complete";
    case End::kNotConnected:
      return "not_connected";
    case End::kConnectDeadline:
      return "connect_timeout";
    case End::kFirstByteDeadline:
      return "first_byte_timeout";
    case End::kDeadline:
      return "timeout";
    case End::kCut:
      return "connection_cut";
    case End::kMalformed:
      return "malformed_http";
    case End::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

class Client::Loop final : public ExchangeHost {
 public:
  explicit Loop(Options given) : work_(io.get_executor()) { options = std::move(given); }
  ~Loop() override {
    // Handlers that were never run go with the io_context, whose base outlives these members.
    running_.clear();
    idle_.clear();
  }

  std::unique_ptr<Connection> take_idle() override {
    if (idle_.empty()) return nullptr;
    std::unique_ptr<Connection> connection = std::move(idle_.back());
    idle_.pop_back();
    return connection;
  }
  void keep_idle(std::unique_ptr<Connection> connection) override {
    if (idle_.size() < options.num_idle_max) idle_.push_back(std::move(connection));
  }
  void forget(Exchange* exchange) override { running_.erase(exchange); }

  void send(Request request, std::shared_ptr<Receiver> receiver) {
    const auto exchange =
        std::make_shared<Exchange>(*this, std::move(request), std::move(receiver));
    running_.emplace(exchange.get(), exchange);
    exchange->start();
  }
  void cancel_all() {
    const auto ending = running_;  // cancel() changes it
    for (const auto& [key, exchange] : ending) exchange->cancel();
  }

 private:
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::vector<std::unique_ptr<Connection>> idle_;
  std::unordered_map<Exchange*, std::shared_ptr<Exchange>> running_;
};

Client::Client(Options options) : loop_(std::make_unique<Loop>(std::move(options))) {}
Client::~Client() = default;

Status Client::resolve() {
  const Url& server = loop_->options.server;
  tcp::resolver resolver(loop_->io);
  error_code ec;
  loop_->endpoints = resolver.resolve(server.host, server.port, ec);
  if (!ec) return ok_status();
  return not_found("host " + server.host + ": " + ec.message());
}

void Client::run() {
  loop_->io.restart();
  loop_->io.run();
}

void Client::stop() {
  // From within the loop: run() would not see a stop that comes before it.
  asio::post(loop_->io, [this] { loop_->io.stop(); });
}

void Client::post(std::function<void()> task) {
  asio::post(loop_->io, std::move(task));
}

void Client::at(int64_t time_us, std::function<void()> task) {
  const auto timer = std::make_shared<asio::steady_timer>(
      loop_->io, std::chrono::steady_clock::time_point(std::chrono::microseconds(time_us)));
  timer->async_wait([timer, task = std::move(task)](const error_code& ec) {
    if (!ec) task();
  });
}

void Client::send(Request request, std::shared_ptr<Receiver> receiver) {
  loop_->send(std::move(request), std::move(receiver));
}

void Client::cancel_all() {
  loop_->cancel_all();
}

}  // namespace nanocp::http_client
