#include "http/connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>

namespace nanocp::http {
namespace {

constexpr double kLingerSeconds = 1.0;
// Beyond a header: room for bodies, and for requests sent ahead.
constexpr size_t kReadAheadBytes = size_t{64} << 10;

}  // namespace

Connection::Connection(std::shared_ptr<Core> core, Tcp::socket socket, std::string remote)
    : core_(std::move(core)),
      remote_(std::move(remote)),
      executor_(socket.get_executor()),
      socket_(std::move(socket)),
      timer_(executor_),
      buffer_(static_cast<size_t>(core_->options.header_bytes_max) + 2 * kReadAheadBytes) {}

Connection::~Connection() = default;

void Connection::start() {
  boost::asio::post(executor_, [self = shared_from_this()] {
    self->set_deadline(self->read_deadline_, self->core_->options.header_timeout_s);
    self->wait_readable();
  });
}

void Connection::refuse() {
  boost::asio::post(executor_, [self = shared_from_this()] {
    const int64_t limit = self->core_->options.max_connections;
    self->begin_request();
    self->reject(503, "too many connections: this server holds " + std::to_string(limit) +
                          "; try again later");
  });
}

void Connection::drain() {
  boost::asio::post(executor_, [self = shared_from_this()] {
    if (self->input_ == Input::kIdle) self->close_now();
  });
}

void Connection::close() {
  boost::asio::post(executor_, [self = shared_from_this()] { self->disconnect(); });
}

// The client has left, or has to.
void Connection::disconnect() {
  if (input_ == Input::kClosed) return;
  std::function<void()> notify;
  std::optional<Exchange> log;
  {
    const std::scoped_lock lock(mutex_);
    is_gone_ = true;
    notify.swap(on_disconnect_);
    if (answer_ != Answer::kNone) {
      log = std::move(open_.log);
      log->complete = false;
      log->duration_us = std::chrono::duration_cast<std::chrono::microseconds>(
                             std::chrono::steady_clock::now() - open_.start)
                             .count();
    }
    answer_ = Answer::kNone;
    open_ = Open();
  }
  if (notify) notify();
  if (log && core_->options.on_exchange) core_->options.on_exchange(*log);
  close_now();
}

// An answer must not be lost because a socket is closed with input unread, which resets the
// connection.
void Connection::linger() {
  input_ = Input::kLinger;
  buffer_.clear();
  IoError ignored;
  socket_.shutdown(Tcp::socket::shutdown_send, ignored);
  set_deadline(read_deadline_, kLingerSeconds);
  wait_readable();
}

void Connection::close_now() {
  if (input_ == Input::kClosed) return;
  input_ = Input::kClosed;
  {
    const std::scoped_lock lock(mutex_);
    is_gone_ = true;
  }
  parser_.reset();
  release_body_budget();
  timer_.cancel();
  IoError ignored;
  socket_.shutdown(Tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  core_->remove(this);
}

void Connection::set_deadline(TimePoint& deadline, double seconds) {
  deadline = std::chrono::steady_clock::now() +
             std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                 std::chrono::duration<double>(seconds));
  arm_timer();
}

// Deadlines mostly move back: the timer is left alone then, and looks again when it fires.
void Connection::arm_timer() {
  const TimePoint next = std::min(read_deadline_, write_deadline_);
  if (next >= timer_expiry_) return;
  timer_expiry_ = next;
  timer_.expires_at(next);
  timer_.async_wait([self = shared_from_this()](const IoError& error) { self->on_timer(error); });
}

void Connection::on_timer(const IoError& error) {
  if (error || input_ == Input::kClosed) return;
  timer_expiry_ = TimePoint::max();
  const TimePoint now = std::chrono::steady_clock::now();
  if (write_deadline_ <= now) {
    disconnect();
  } else if (read_deadline_ <= now) {
    read_deadline_ = TimePoint::max();
    on_read_deadline();
  }
  if (input_ != Input::kClosed) arm_timer();
}

void Connection::on_read_deadline() {
  switch (input_) {
    case Input::kIdle:
    case Input::kLinger:
      close_now();
      return;
    case Input::kHeader:
      reject(408, "the request's header did not arrive in time");
      return;
    case Input::kBody:
      reject(408, "the request's body did not arrive in time");
      return;
    case Input::kWaiting:
    case Input::kClosed:
      return;
  }
}

}  // namespace nanocp::http
