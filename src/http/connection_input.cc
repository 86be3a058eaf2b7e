#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/http/error.hpp>
#include <cstdio>
#include <exception>

#include "http/connection.h"
#include "http/request_id.h"
#include "http/request_target.h"

namespace nanocp::http {
namespace {

namespace beast_http = boost::beast::http;

constexpr size_t kReadBytes = size_t{16} << 10;
constexpr size_t kBodyReadBytes = size_t{64} << 10;
constexpr size_t kPipelinedBytesMax = size_t{64} << 10;

std::string to_string(boost::beast::string_view text) {
  return {text.data(), text.size()};
}

void run_handler(Core& core, Request request, const std::shared_ptr<Response>& response) {
  std::string message = "unknown exception";
  try {
    core.handler(std::move(request), response);
    return;
  } catch (const std::exception& error) {
    message = error.what();
  } catch (...) {  // NOLINT(bugprone-empty-catch): told below
  }
  std::fprintf(stderr, "error: a request's handler threw: %s\n", message.c_str());
  response->send(500, {{"Content-Type", core.options.error_content_type}},
                 core.error_body(500, "internal error"));
}

}  // namespace

// Also while an answer is awaited, to see that the client leaves and to take what it sends ahead.
void Connection::wait_readable() {
  if (is_waiting_readable_ || is_half_closed_ || input_ == Input::kClosed) return;
  if (input_ == Input::kWaiting && buffer_.size() >= kPipelinedBytesMax) return;
  is_waiting_readable_ = true;
  socket_.async_wait(Tcp::socket::wait_read, [self = shared_from_this()](const IoError& error) {
    self->is_waiting_readable_ = false;
    self->on_readable(error);
  });
}

void Connection::on_readable(const IoError& error) {
  if (input_ == Input::kClosed) return;
  IoError read_error = error;
  size_t num_bytes = 0;
  if (!read_error) {
    const size_t wanted = input_ == Input::kBody ? kBodyReadBytes : kReadBytes;
    const size_t room = buffer_.max_size() - buffer_.size();
    num_bytes = socket_.read_some(buffer_.prepare(std::min(wanted, room)), read_error);
  }
  if (read_error == boost::asio::error::would_block) return wait_readable();
  if (read_error == boost::asio::error::eof) return on_peer_closed();
  if (read_error) return disconnect();
  buffer_.commit(num_bytes);
  if (input_ == Input::kLinger) {
    buffer_.clear();
  } else {
    parse();
  }
  if (buffer_.size() == 0) buffer_.shrink_to_fit();
  wait_readable();
}

// The client sends nothing more. It may still read, but a client that left looks just the same:
// those who asked to be told take it as gone.
void Connection::on_peer_closed() {
  bool has_listener = false;
  {
    const std::scoped_lock lock(mutex_);
    is_half_closed_ = true;
    has_listener = on_disconnect_ != nullptr;
  }
  if (input_ != Input::kWaiting || has_listener) disconnect();
}

void Connection::parse() {
  const auto is_reading = [this] {
    return input_ == Input::kIdle || input_ == Input::kHeader || input_ == Input::kBody;
  };
  while (is_reading() && parse_some()) {
  }
}

// Whether there may be more to parse in what has been read.
bool Connection::parse_some() {
  if (!parser_) {
    skip_empty_lines();
    if (buffer_.size() == 0) return false;
    begin_request();
  }
  IoError error;
  const size_t num_used = parser_->put(buffer_.data(), error);
  buffer_.consume(num_used);
  const bool needs_more = error == beast_http::error::need_more;
  if (error && !needs_more) {
    reject_parse_error(error);
    return false;
  }
  if (parser_->is_header_done() && !header_checked_) {
    header_checked_ = true;
    parser_->eager(true);
    input_ = Input::kBody;
    set_deadline(read_deadline_, core_->options.body_timeout_s);
    if (!check_header()) return false;
  }
  if (header_checked_ && !take_body_budget()) return false;
  if (parser_->is_done()) {
    dispatch();
    return false;
  }
  if (needs_more && buffer_.size() == buffer_.max_size()) {
    reject(400, "a chunk's header or trailer is too long");
    return false;
  }
  return !needs_more && buffer_.size() > 0;
}

// Some clients end a body with a line break of their own.
void Connection::skip_empty_lines() {
  const auto* bytes = static_cast<const char*>(buffer_.data().data());
  size_t length = 0;
  while (length < buffer_.size() && (bytes[length] == '\r' || bytes[length] == '\n')) ++length;
  buffer_.consume(length);
}

void Connection::begin_request() {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(core_->options.header_bytes_max));
  parser_->body_limit(static_cast<uint64_t>(core_->options.body_bytes_max));
  header_checked_ = false;
  input_ = Input::kHeader;
  set_deadline(read_deadline_, core_->options.header_timeout_s);
  const std::scoped_lock lock(mutex_);
  open_ = Open();
  open_.number = ++core_->num_requests;
  open_.start = std::chrono::steady_clock::now();
  open_.log.id = make_request_id();
  open_.log.remote = remote_;
  answer_ = Answer::kAwaited;
}

bool Connection::check_header() {
  const auto& message = parser_->get();
  {
    const std::scoped_lock lock(mutex_);
    open_.is_head = message.method() == beast_http::verb::head;
    open_.is_http_1_0 = message.version() < 11;
    open_.keeps_alive = parser_->keep_alive();
    open_.log.method = to_string(message.method_string());
    open_.log.path = to_string(message.target());
    const std::string id = to_string(message["x-request-id"]);
    if (is_request_id(id)) open_.log.id = id;
  }
  if (message.version() != 10 && message.version() != 11) {
    reject(505, "this server speaks HTTP/1.1 and HTTP/1.0");
    return false;
  }
  const auto num_fields = std::distance(message.begin(), message.end());
  if (num_fields > core_->options.num_headers_max) {
    reject(431, "the request has " + std::to_string(num_fields) + " header fields, at most " +
                    std::to_string(core_->options.num_headers_max) + " are taken");
    return false;
  }
  const bool has_coding = message.count(beast_http::field::transfer_encoding) > 0;
  if (has_coding && !parser_->chunked()) {
    reject(501, "Transfer-Encoding must be chunked");
    return false;
  }
  if (has_coding && message.version() == 10) {
    reject(400, "HTTP/1.0 has no Transfer-Encoding");
    return false;
  }
  const auto num_hosts = message.count(beast_http::field::host);
  if (num_hosts > 1 || (num_hosts == 0 && message.version() == 11)) {
    reject(400, "a request must have one Host field");
    return false;
  }
  return accept_expectation();
}

bool Connection::accept_expectation() {
  const std::string expectation = to_string(parser_->get()[beast_http::field::expect]);
  const bool is_moot = parser_->is_done() || parser_->get().version() == 10;
  if (expectation.empty() || is_moot) return true;
  if (!boost::beast::iequals(expectation, "100-continue")) {
    reject(417, "the only expectation this server meets is 100-continue");
    return false;
  }
  // Nothing else is being written, so the few bytes fit the socket's buffer.
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  IoError error;
  const size_t num_written =
      socket_.write_some(boost::asio::buffer(kContinue.data(), kContinue.size()), error);
  if (!error && num_written == kContinue.size()) return true;
  disconnect();
  return false;
}

// Bodies of all connections together are bounded.
bool Connection::take_body_budget() {
  const auto announced = parser_->content_length();
  const auto size = static_cast<int64_t>(announced ? *announced : parser_->get().body().size());
  if (size <= body_budget_) return true;
  const int64_t more = size - body_budget_;
  body_budget_ = size;
  if (core_->body_bytes.fetch_add(more) + more <= core_->options.all_bodies_bytes_max) return true;
  reject(503, "the server holds too many request bodies; try again later");
  return false;
}

void Connection::release_body_budget() {
  core_->body_bytes -= std::exchange(body_budget_, 0);
}

Request Connection::take_request() {
  auto message = parser_->release();
  Request request;
  request.method = to_string(message.method_string());
  for (const auto& field : message) {
    request.headers.push_back({to_string(field.name_string()), to_string(field.value())});
  }
  request.remote = remote_;
  request.body = std::move(message.body());
  const std::scoped_lock lock(mutex_);
  request.id = open_.log.id;
  open_.log.request_bytes = static_cast<int64_t>(request.body.size());
  return request;
}

void Connection::dispatch() {
  const auto target = parse_target(to_string(parser_->get().target()));
  if (!target) {
    reject(400, "the request's target is not a path with valid percent escapes");
    return;
  }
  Request request = take_request();
  request.path = target->path;
  request.query = target->query;
  uint64_t number = 0;
  {
    const std::scoped_lock lock(mutex_);
    open_.log.path = target->path;
    number = open_.number;
  }
  parser_.reset();
  input_ = Input::kWaiting;
  read_deadline_ = TimePoint::max();
  const auto response = std::make_shared<Response>(shared_from_this(), number);
  boost::asio::post(core_->handler_threads, [core = core_, response, request = std::move(request),
                                             budget = std::exchange(body_budget_, 0)]() mutable {
    run_handler(*core, std::move(request), response);
    core->body_bytes -= budget;
  });
}

// The rest of what the client sends is not understood, so the connection ends with this answer.
void Connection::reject(int status, const std::string& message) {
  parser_.reset();
  release_body_budget();
  input_ = Input::kWaiting;
  read_deadline_ = TimePoint::max();
  uint64_t number = 0;
  {
    const std::scoped_lock lock(mutex_);
    open_.keeps_alive = false;
    number = open_.number;
  }
  send(number, status, {{"Content-Type", core_->options.error_content_type}},
       core_->error_body(status, message));
}

void Connection::reject_parse_error(const IoError& error) {
  const auto limit = [](int64_t bytes) { return std::to_string(bytes) + " bytes"; };
  if (error == beast_http::error::header_limit) {
    reject(431, "the request's header is larger than " + limit(core_->options.header_bytes_max));
  } else if (error == beast_http::error::body_limit) {
    reject(413, "the request's body is larger than " + limit(core_->options.body_bytes_max));
  } else if (error == beast_http::error::bad_version) {
    reject(505, "this server speaks HTTP/1.1 and HTTP/1.0");
  } else {
    reject(400, "the request is not HTTP: " + error.message());
  }
}

}  // namespace nanocp::http
