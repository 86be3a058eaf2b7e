#include "http_client/exchange.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <limits>

#include "base/clock.h"

namespace nanocp::http_client {
namespace {

namespace http = beast::http;

constexpr size_t kReadBytes = size_t{64} << 10;
constexpr uint32_t kHeaderBytesMax = 64U << 10;
constexpr unsigned kHttpVersion = 11;

// of SteadyClock, which counts from the same start.
std::chrono::steady_clock::time_point time_point(int64_t time_us) {
  return std::chrono::steady_clock::time_point(std::chrono::microseconds(time_us));
}

}  // namespace

Exchange::Exchange(ExchangeHost& host, Request request, std::shared_ptr<Receiver> receiver)
    : host_(host), receiver_(std::move(receiver)), timer_(host.io) {
  request_.method_string(request.method);
  request_.target(request.target);
  request_.version(kHttpVersion);
  request_.set(http::field::host, host.options.server.host_header());
  request_.set(http::field::user_agent, "nanocp-bench");
  for (const auto& [name, value] : request.headers) request_.set(name, value);
  request_.body() = std::move(request.body);
  request_.prepare_payload();
}

void Exchange::start() {
  start_us_ = SteadyClock().now_us();
  open(host_.take_idle());
}

void Exchange::open(std::unique_ptr<Connection> idle) {
  const Options& options = host_.options;
  const int64_t end_us = start_us_ + options.deadline_us;
  new_parser();
  has_bytes_ = is_written_ = false;
  buffer_.clear();
  if (idle) {
    connection_ = std::move(idle);
    converse();
    return;
  }
  connection_ = std::make_unique<Connection>(host_.io);
  arm(std::min(end_us, SteadyClock().now_us() + options.connect_deadline_us),
      End::kConnectDeadline);
  connect();
}

void Exchange::connect() {
  asio::async_connect(
      connection_->socket, host_.endpoints,
      [self = shared_from_this()](const error_code& ec, const tcp::endpoint& /*to*/) {
        if (self->is_over_) return;
        if (ec) {
          self->finish(End::kNotConnected, ec.message());
          return;
        }
        error_code ignored;  // slower without, but it works
        self->connection_->socket.set_option(tcp::no_delay(true), ignored);
        self->converse();
      });
}

// Reads while it writes: a server may answer, with an error for instance, before it has read all.
void Exchange::converse() {
  const Options& options = host_.options;
  const bool is_first = options.first_byte_deadline_us < options.deadline_us;
  arm(start_us_ + std::min(options.first_byte_deadline_us, options.deadline_us),
      is_first ? End::kFirstByteDeadline : End::kDeadline);
  http::async_write(connection_->socket, request_,
                    [self = shared_from_this()](const error_code& ec, size_t /*num_bytes*/) {
                      self->is_written_ = !ec;  // the reader sees what became of the connection
                    });
  read();
}

void Exchange::read() {
  connection_->socket.async_read_some(
      buffer_.prepare(kReadBytes),
      [self = shared_from_this()](const error_code& ec, size_t num_bytes) {
        self->on_read(ec, num_bytes);
      });
}

void Exchange::on_read(const error_code& ec, size_t num_bytes) {
  if (is_over_) return;
  now_us_ = SteadyClock().now_us();
  if (ec) {
    on_connection_end(ec);
    return;
  }
  has_bytes_ = true;
  buffer_.commit(num_bytes);
  if (parse() && !is_over_) read();
}

// True: the answer goes on.
bool Exchange::parse() {
  while (buffer_.size() > 0) {
    error_code ec;
    const size_t num_used = parser_->put(buffer_.data(), ec);
    buffer_.consume(num_used);
    if (is_unwanted_) {
      finish(End::kCancelled, "not wanted any more");
      return false;
    }
    if (ec == http::error::need_more) return true;
    if (ec) {
      finish(End::kMalformed, ec.message());
      return false;
    }
    if (parser_->is_header_done() && !has_head_) report_head();
    if (!parser_->is_done()) continue;
    // 100 Continue and the like come before the answer.
    if (parser_->get().result_int() / 100 != 1) {
      finish(End::kComplete, "");
      return false;
    }
    new_parser();
  }
  return true;
}

void Exchange::report_head() {
  const auto& head = parser_->get();
  if (head.result_int() / 100 == 1) return;
  has_head_ = true;
  const auto type = head[http::field::content_type];
  receiver_->on_head(static_cast<int>(head.result_int()), {type.data(), type.size()});
}

void Exchange::new_parser() {
  parser_.emplace();
  parser_->get().body().exchange = this;
  parser_->header_limit(kHeaderBytesMax);
  // No limit here, where nothing is kept. As a number: Boost 1.74 takes none for a limit of 0.
  parser_->body_limit(std::numeric_limits<uint64_t>::max());
}

void Exchange::take_body(std::string_view bytes) {
  if (is_unwanted_ || bytes.empty()) return;
  // The head's last bytes and the body's first may be parsed together.
  if (!has_head_) report_head();
  if (!has_body_) {
    has_body_ = true;
    arm(start_us_ + host_.options.deadline_us, End::kDeadline);
  }
  is_unwanted_ = !receiver_->on_body(bytes, now_us_);
}

void Exchange::on_connection_end(const error_code& ec) {
  if (connection_->is_used && !has_bytes_) {
    // Closed while it was idle: no fault of this request.
    open(nullptr);
    return;
  }
  if (ec == asio::error::eof && parser_->got_some()) {
    error_code end;
    parser_->put_eof(end);
    if (!end && parser_->is_done()) {
      if (!has_head_) report_head();
      finish(End::kComplete, "");
      return;
    }
  }
  finish(End::kCut, ec == asio::error::eof ? "the server closed the connection" : ec.message());
}

void Exchange::arm(int64_t deadline_us, End on_expiry) {
  on_expiry_ = on_expiry;
  timer_.expires_at(time_point(deadline_us));
  timer_.async_wait([self = shared_from_this()](const error_code& ec) {
    // A wait that ended before it was armed anew may still get here.
    if (ec || self->is_over_ || self->timer_.expiry() > std::chrono::steady_clock::now()) return;
    self->now_us_ = SteadyClock().now_us();
    self->finish(self->on_expiry_, self->deadline_text(self->on_expiry_));
  });
}

std::string Exchange::deadline_text(End end) const {
  const Options& options = host_.options;
  const bool is_connecting = end == End::kConnectDeadline;
  const int64_t limit_us = is_connecting                    ? options.connect_deadline_us
                           : end == End::kFirstByteDeadline ? options.first_byte_deadline_us
                                                            : options.deadline_us;
  std::string text = is_connecting                    ? "no connection to "
                     : end == End::kFirstByteDeadline ? "no byte of an answer from "
                                                      : "no complete answer from ";
  text += options.server.host_header();
  text += " within ";
  text += std::to_string(static_cast<double>(limit_us) / 1e6);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text + " s";
}

void Exchange::cancel() {
  if (is_over_) return;
  now_us_ = SteadyClock().now_us();
  finish(End::kCancelled, "cancelled");
}

void Exchange::finish(End end, const std::string& detail) {
  if (is_over_) return;
  const auto self = shared_from_this();  // forget() may drop the last other one
  is_over_ = true;
  timer_.cancel();
  const bool can_stay =
      end == End::kComplete && is_written_ && buffer_.size() == 0 && parser_->get().keep_alive();
  if (can_stay) {
    connection_->is_used = true;
    host_.keep_idle(std::move(connection_));
  } else {
    error_code ignored;  // closed either way
    connection_->socket.close(ignored);
  }
  host_.forget(this);
  const int64_t end_us = now_us_ != 0 ? now_us_ : SteadyClock().now_us();
  receiver_->on_end(end, detail, end_us);
}

}  // namespace nanocp::http_client
