#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/beast/core/buffers_suffix.hpp>
#include <cstdio>
#include <ctime>

#include "http/connection.h"

namespace nanocp::http {
namespace {

// A client takes so many bytes within one write deadline.
constexpr size_t kBytesPerDeadline = size_t{256} << 10;

void append_field(std::string& out, std::string_view name, std::string_view value) {
  out.append(name).append(": ");
  // A line break would begin another field, or the body.
  for (const char c : value) out.push_back(c == '\r' || c == '\n' || c == '\0' ? ' ' : c);
  out.append("\r\n");
}

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm parts = {};
  gmtime_r(&now, &parts);
  std::array<char, 40> text = {};
  const size_t length =
      std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  return {text.data(), length};
}

bool has_no_body(int status) {
  return status < 200 || status == 204 || status == 304;
}

std::string chunk_size_line(size_t size) {
  std::array<char, 24> text = {};
  const int length = std::snprintf(text.data(), text.size(), "%zx\r\n", size);
  return {text.data(), static_cast<size_t>(length)};
}

}  // namespace

// Status line and fields; without a length the body goes on until finish().
void Connection::begin_answer(int status, const Headers& headers, std::optional<size_t> length) {
  drops_body_ = open_.is_head || has_no_body(status);
  is_chunked_ = !length && !open_.is_http_1_0 && !drops_body_;
  if (!length && open_.is_http_1_0) open_.keeps_alive = false;
  if (core_->draining) open_.keeps_alive = false;
  open_.log.status = status;

  head_.assign(open_.is_http_1_0 ? "HTTP/1.0 " : "HTTP/1.1 ").append(std::to_string(status));
  head_.append(" ").append(reason_phrase(status)).append("\r\n");
  append_field(head_, "Date", http_date());
  if (!open_.log.id.empty()) append_field(head_, "x-request-id", open_.log.id);
  for (const Header& header : open_.added) append_field(head_, header.name, header.value);
  for (const Header& header : headers) append_field(head_, header.name, header.value);
  if (length && !has_no_body(status)) {
    append_field(head_, "Content-Length", std::to_string(*length));
  }
  if (is_chunked_) append_field(head_, "Transfer-Encoding", "chunked");
  if (!open_.keeps_alive) append_field(head_, "Connection", "close");
  if (open_.keeps_alive && open_.is_http_1_0) append_field(head_, "Connection", "keep-alive");
  head_.append("\r\n");
}

void Connection::add_header(uint64_t exchange, Header header) {
  const std::scoped_lock lock(mutex_);
  if (is_open(exchange)) open_.added.push_back(std::move(header));
}

void Connection::send(uint64_t exchange, int status, Headers headers, std::string body) {
  const std::scoped_lock lock(mutex_);
  if (!is_open(exchange) || answer_ != Answer::kAwaited) return;
  begin_answer(status, headers, body.size());
  if (!drops_body_) {
    open_.log.response_bytes = static_cast<int64_t>(body.size());
    body_ = std::move(body);
  }
  answer_ = Answer::kComplete;
  post_flush();
}

void Connection::begin_stream(uint64_t exchange, int status, Headers headers) {
  const std::scoped_lock lock(mutex_);
  if (!is_open(exchange) || answer_ != Answer::kAwaited) return;
  begin_answer(status, headers, std::nullopt);
  answer_ = Answer::kStreaming;
  post_flush();
}

bool Connection::write(uint64_t exchange, std::string_view bytes) {
  const std::scoped_lock lock(mutex_);
  if (!is_open(exchange) || answer_ != Answer::kStreaming) return false;
  if (drops_body_ || bytes.empty()) return true;
  if (unsent_bytes_ + bytes.size() > static_cast<size_t>(core_->options.unsent_bytes_max)) {
    is_gone_ = true;
    close();
    return false;
  }
  body_.append(bytes);
  unsent_bytes_ += bytes.size();
  open_.log.response_bytes += static_cast<int64_t>(bytes.size());
  post_flush();
  return true;
}

void Connection::finish(uint64_t exchange) {
  const std::scoped_lock lock(mutex_);
  if (!is_open(exchange) || answer_ != Answer::kStreaming) return;
  answer_ = Answer::kComplete;
  post_flush();
}

// Nobody holds the response any more.
void Connection::abandon(uint64_t exchange) {
  bool is_begun = false;
  {
    const std::scoped_lock lock(mutex_);
    if (!is_open(exchange) || answer_ == Answer::kComplete) return;
    is_begun = answer_ == Answer::kStreaming;
  }
  // A stream without its end: closing is how HTTP says that it is incomplete.
  if (is_begun) {
    close();
  } else {
    send(exchange, 500, {{"Content-Type", core_->options.error_content_type}},
         core_->error_body(500, "the server gave no answer"));
  }
}

void Connection::on_disconnect(uint64_t exchange, std::function<void()> fn) {
  std::function<void()> replaced;  // destroyed without the lock
  {
    const std::scoped_lock lock(mutex_);
    const bool is_complete = open_.number == exchange && answer_ == Answer::kComplete;
    if (is_complete || exchange <= last_complete_) return;
    if (is_open(exchange) && !is_half_closed_) {
      replaced = std::exchange(on_disconnect_, std::move(fn));
      return;
    }
    if (!is_gone_) close();
  }
  fn();
}

bool Connection::is_connected(uint64_t exchange) const {
  const std::scoped_lock lock(mutex_);
  return is_open(exchange);
}

void Connection::post_flush() {
  if (flush_posted_) return;
  flush_posted_ = true;
  boost::asio::post(executor_, [self = shared_from_this()] { self->flush(); });
}

size_t Connection::Output::num_bytes() const {
  return head.size() + chunk_size.size() + body.size() + trailer.size();
}

// What has gathered becomes the next output, in one chunk; false when there is nothing.
bool Connection::take_output() {
  const std::scoped_lock lock(mutex_);
  flush_posted_ = false;
  output_.is_last = answer_ == Answer::kComplete;
  if (answer_ == Answer::kNone || (head_.empty() && body_.empty() && !output_.is_last)) {
    return false;
  }
  output_.head.clear();
  output_.body.clear();
  output_.chunk_size.clear();
  output_.trailer.clear();
  output_.head.swap(head_);
  output_.body.swap(body_);
  if (is_chunked_ && !output_.body.empty()) {
    output_.chunk_size = chunk_size_line(output_.body.size());
    output_.trailer = "\r\n";
  }
  if (is_chunked_ && output_.is_last) output_.trailer += "0\r\n\r\n";
  return true;
}

void Connection::flush() {
  if (is_writing_ || input_ == Input::kClosed || !take_output()) return;
  is_writing_ = true;
  bytes_since_deadline_ = 0;
  output_.left.emplace(
      Pieces{boost::asio::buffer(output_.head), boost::asio::buffer(output_.chunk_size),
             boost::asio::buffer(output_.body), boost::asio::buffer(output_.trailer)});
  if (output_.num_bytes() == 0) {
    on_written(IoError(), 0);
    return;
  }
  set_deadline(write_deadline_, core_->options.write_timeout_s);
  write_some();
}

void Connection::write_some() {
  socket_.async_write_some(*output_.left,
                           [self = shared_from_this()](const IoError& error, size_t num_bytes) {
                             self->on_written(error, num_bytes);
                           });
}

void Connection::on_written(const IoError& error, size_t num_bytes) {
  if (input_ == Input::kClosed) return;
  if (error) {
    disconnect();
    return;
  }
  output_.left->consume(num_bytes);
  if (boost::beast::buffer_bytes(*output_.left) > 0) {
    bytes_since_deadline_ += num_bytes;
    if (bytes_since_deadline_ >= kBytesPerDeadline) {
      bytes_since_deadline_ = 0;
      set_deadline(write_deadline_, core_->options.write_timeout_s);
    }
    write_some();
    return;
  }
  is_writing_ = false;
  write_deadline_ = TimePoint::max();
  if (output_.is_last) {
    end_exchange();
    return;
  }
  {
    const std::scoped_lock lock(mutex_);
    unsent_bytes_ -= std::min(unsent_bytes_, output_.body.size());
  }
  flush();
}

// The answer is out.
void Connection::end_exchange() {
  std::function<void()> unused;  // destroyed without the lock
  Exchange log;
  bool stays_open = false;
  bool is_half_closed = false;
  {
    const std::scoped_lock lock(mutex_);
    unused.swap(on_disconnect_);
    log = std::move(open_.log);
    log.duration_us = std::chrono::duration_cast<std::chrono::microseconds>(
                          std::chrono::steady_clock::now() - open_.start)
                          .count();
    stays_open = open_.keeps_alive && !core_->draining;
    is_half_closed = is_half_closed_;
    unsent_bytes_ = 0;
    answer_ = Answer::kNone;
    last_complete_ = open_.number;
    open_ = Open();
  }
  if (core_->options.on_exchange) core_->options.on_exchange(log);
  if (!stays_open) {
    if (is_half_closed) return close_now();
    return linger();
  }
  input_ = Input::kIdle;
  set_deadline(read_deadline_, core_->options.idle_timeout_s);
  parse();
  if (is_half_closed && input_ != Input::kWaiting) return close_now();
  wait_readable();
}

}  // namespace nanocp::http
