#include "http/server.h"

#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "http/connection.h"
#include "http/core.h"

namespace nanocp::http {
namespace {

using Tcp = boost::asio::ip::tcp;
using IoError = boost::system::error_code;

// Files that are no connections: weights, logs, epoll.
constexpr rlim_t kOtherFiles = 128;
// Beyond the limit of connections so many may be told why; more are closed without a word.
constexpr int64_t kRefusedAtOnceMax = 64;
// Closing a connection waits for nobody.
constexpr double kClosePollS = 1.0;
constexpr auto kAcceptPause = std::chrono::milliseconds(100);
// A peer whose machine has vanished is noticed within two minutes, also where nothing is sent.
constexpr int kKeepAliveIdleS = 60;
constexpr int kKeepAliveIntervalS = 15;
constexpr int kKeepAliveProbes = 4;

// Raises the soft limit of open files as far as needed and possible; returns how many connections
// that leaves room for.
int raise_file_limit(int max_connections) {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return max_connections;
  const rlim_t wanted = static_cast<rlim_t>(max_connections + kRefusedAtOnceMax) + kOtherFiles;
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) return max_connections;
  const rlim_t others = kOtherFiles + static_cast<rlim_t>(kRefusedAtOnceMax);
  return limit.rlim_cur > others ? static_cast<int>(limit.rlim_cur - others) : 1;
}

// Without them connections work too, so failures do not matter.
void set_tcp_options(Tcp::socket& socket) {
  const auto set = [&socket](int level, int name, int value) {
    static_cast<void>(setsockopt(socket.native_handle(), level, name, &value, sizeof(value)));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleS);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveIntervalS);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
}

std::string address_text(const Tcp::endpoint& endpoint) {
  const std::string address = endpoint.address().to_string();
  const std::string port = std::to_string(endpoint.port());
  return endpoint.address().is_v6() ? "[" + address + "]:" + port : address + ":" + port;
}

}  // namespace

class Server::Impl {
 public:
  Impl(Options options, Handler handler)
      : core_(std::make_shared<Core>(std::move(options), std::move(handler))),
        work_(core_->io.get_executor()),
        acceptor_(boost::asio::make_strand(core_->io)),
        accept_timer_(acceptor_.get_executor()) {}

  Status listen();
  void run();
  void begin_drain();
  void stop(double timeout_s);

  const Core& core() const { return *core_; }
  uint16_t port() const { return port_; }

 private:
  void accept();
  void on_accepted(const IoError& error, Tcp::socket socket);

  const std::shared_ptr<Core> core_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  Tcp::acceptor acceptor_;                  // its strand's own
  boost::asio::steady_timer accept_timer_;  // likewise
  uint16_t port_ = 0;
  std::vector<std::thread> threads_;
  bool is_stopped_ = false;
};

Status Server::Impl::listen() {
  const Options& options = core_->options;
  const std::string place = options.host + " port " + std::to_string(options.port);
  const auto failed = [&place](const char* what, const IoError& error) {
    return Error{ErrorCode::kInternal,
                 "cannot " + std::string(what) + " " + place + ": " + error.message()};
  };
  IoError error;
  Tcp::resolver resolver(core_->io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), Tcp::resolver::passive, error);
  if (error || found.empty()) return failed("find the address of", error);
  const Tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor_.open(endpoint.protocol(), error);
  if (!error) acceptor_.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor_.bind(endpoint, error);
  if (!error) acceptor_.listen(boost::asio::socket_base::max_listen_connections, error);
  if (!error) port_ = acceptor_.local_endpoint(error).port();
  if (error) return failed("listen on", error);
  return ok_status();
}

void Server::Impl::run() {
  boost::asio::post(acceptor_.get_executor(), [this] { accept(); });
  for (int i = 0; i < core_->options.num_io_threads; ++i) {
    threads_.emplace_back([this] { core_->io.run(); });
  }
}

void Server::Impl::accept() {
  acceptor_.async_accept(
      boost::asio::make_strand(core_->io),
      [this](const IoError& error, Tcp::socket socket) { on_accepted(error, std::move(socket)); });
}

void Server::Impl::on_accepted(const IoError& error, Tcp::socket socket) {
  if (!acceptor_.is_open()) return;
  if (error) {
    // Out of files or memory: some will be free in a while.
    accept_timer_.expires_after(kAcceptPause);
    accept_timer_.async_wait([this](const IoError& cancelled) {
      if (!cancelled && acceptor_.is_open()) accept();
    });
    return;
  }
  IoError gone;
  const Tcp::endpoint remote = socket.remote_endpoint(gone);
  const int64_t num_open = core_->num_connections();
  const int64_t limit = core_->options.max_connections;
  if (!gone && num_open < limit + kRefusedAtOnceMax) {
    set_tcp_options(socket);
    socket.non_blocking(true, gone);
    const auto connection =
        std::make_shared<Connection>(core_, std::move(socket), address_text(remote));
    core_->add(connection);
    if (num_open < limit) {
      connection->start();
    } else {
      ++core_->num_refused;
      connection->refuse();
    }
  }
  accept();
}

void Server::Impl::begin_drain() {
  core_->draining = true;
  for (const auto& connection : core_->connections()) connection->drain();
}

void Server::Impl::stop(double timeout_s) {
  if (std::exchange(is_stopped_, true)) return;
  std::promise<void> closed;
  boost::asio::post(acceptor_.get_executor(), [this, &closed] {
    IoError ignored;
    acceptor_.close(ignored);
    accept_timer_.cancel();
    closed.set_value();
  });
  closed.get_future().wait();
  begin_drain();
  if (!core_->wait_no_connections(timeout_s)) {
    for (const auto& connection : core_->connections()) connection->close();
    while (!core_->wait_no_connections(kClosePollS)) {
    }
  }
  // No connection is left to ask for a handler, then no handler to touch a connection.
  core_->handler_threads.join();
  work_.reset();
  for (std::thread& thread : threads_) thread.join();
}

Result<std::unique_ptr<Server>> Server::start(Options options, Handler handler) {
  options.max_connections = raise_file_limit(options.max_connections);
  auto impl = std::make_unique<Impl>(std::move(options), std::move(handler));
  NANOCP_RETURN_IF_ERROR(impl->listen());
  impl->run();
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Server::~Server() {
  stop(0.0);
}

const std::string& Server::host() const {
  return impl_->core().options.host;
}

uint16_t Server::port() const {
  return impl_->port();
}

int Server::max_connections() const {
  return impl_->core().options.max_connections;
}

Counters Server::counters() const {
  return {.num_connections = impl_->core().num_connections(),
          .num_refused = impl_->core().num_refused,
          .num_requests = static_cast<int64_t>(impl_->core().num_requests)};
}

void Server::begin_drain() {
  impl_->begin_drain();
}

void Server::stop(double timeout_s) {
  impl_->stop(timeout_s);
}

}  // namespace nanocp::http
