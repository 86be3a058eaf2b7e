// One client: reads requests one after the other, hands each to the handler, and writes its answer.
// All reading and writing happens on the connection's strand; answers are given from any thread and
// gathered under a mutex until the strand writes them. Shared by its pending operations and by the
// responses to it. See docs/decisions/0022-http-server.md.
#pragma once

#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/buffers_suffix.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "http/core.h"
#include "http/message.h"

namespace nanocp::http {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Tcp = boost::asio::ip::tcp;

  // Requires: the socket's executor is a strand.
  Connection(std::shared_ptr<Core> core, Tcp::socket socket, std::string remote);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Any thread, once: serves requests, or answers 503 and closes.
  void start();
  void refuse();
  // Any thread. Closes at once if no request is open, else after its answer.
  void drain();
  // Any thread. Closes at once.
  void close();

  // For responses, any thread. `exchange` says which request they answer; nothing happens when it
  // is not the one that is open.
  void add_header(uint64_t exchange, Header header);
  void send(uint64_t exchange, int status, Headers headers, std::string body);
  void begin_stream(uint64_t exchange, int status, Headers headers);
  bool write(uint64_t exchange, std::string_view bytes);
  void finish(uint64_t exchange);
  void abandon(uint64_t exchange);
  void on_disconnect(uint64_t exchange, std::function<void()> fn);
  bool is_connected(uint64_t exchange) const;

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;
  using TimePoint = std::chrono::steady_clock::time_point;
  using IoError = boost::system::error_code;
  using Pieces = std::array<boost::asio::const_buffer, 4>;

  enum class Input {
    kIdle,     // no byte of a request yet
    kHeader,   // within a header
    kBody,     // within a body
    kWaiting,  // a request is open
    kLinger,   // the last answer is out; what still comes is dropped
    kClosed,
  };
  enum class Answer {
    kNone,       // no request is open
    kAwaited,    // nobody has begun to answer
    kStreaming,  // there may be more
    kComplete,   // all of it is in head_ and body_, or written
  };
  // What is known of the open request; for the answer's framing and the log.
  struct Open {
    uint64_t number = 0;
    bool is_head = false;
    bool is_http_1_0 = false;
    bool keeps_alive = true;
    TimePoint start;
    Headers added;  // to the answer
    Exchange log;
  };
  // What is being written.
  struct Output {
    std::string head;
    std::string chunk_size;
    std::string body;
    std::string trailer;
    std::optional<boost::beast::buffers_suffix<Pieces>> left;
    bool is_last = false;  // completes the answer
    size_t num_bytes() const;
  };

  // Input (connection_input.cc), on the strand.
  void wait_readable();
  void on_readable(const IoError& error);
  void on_peer_closed();
  void parse();
  bool parse_some();
  void skip_empty_lines();
  void begin_request();
  bool check_header();
  bool accept_expectation();
  bool take_body_budget();
  void release_body_budget();
  void dispatch();
  Request take_request();
  void reject(int status, const std::string& message);
  void reject_parse_error(const IoError& error);

  // Output (connection_output.cc), on the strand.
  bool take_output();
  void flush();
  void write_some();
  void on_written(const IoError& error, size_t num_bytes);
  void end_exchange();

  // Output, under mutex_.
  bool is_open(uint64_t exchange) const { return open_.number == exchange && !is_gone_; }
  void begin_answer(int status, const Headers& headers, std::optional<size_t> length);
  void post_flush();

  // Closing and deadlines (connection.cc), on the strand.
  void disconnect();
  void linger();
  void close_now();
  void set_deadline(TimePoint& deadline, double seconds);
  void arm_timer();
  void on_timer(const IoError& error);
  void on_read_deadline();

  // Constant after construction.
  const std::shared_ptr<Core> core_;
  const std::string remote_;
  const Tcp::socket::executor_type executor_;

  // The strand's own.
  Tcp::socket socket_;
  boost::asio::steady_timer timer_;
  TimePoint timer_expiry_ = TimePoint::max();
  TimePoint read_deadline_ = TimePoint::max();
  TimePoint write_deadline_ = TimePoint::max();
  Input input_ = Input::kIdle;
  bool is_waiting_readable_ = false;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  bool header_checked_ = false;
  int64_t body_budget_ = 0;  // taken from Core::body_bytes
  bool is_writing_ = false;
  Output output_;
  size_t bytes_since_deadline_ = 0;

  // Guarded by mutex_.
  mutable std::mutex mutex_;
  Open open_;
  Answer answer_ = Answer::kNone;
  uint64_t last_complete_ = 0;  // number of the last request whose answer got out
  std::string head_;
  std::string body_;
  bool is_chunked_ = false;
  bool drops_body_ = false;  // of HEAD, 204, 304
  bool flush_posted_ = false;
  size_t unsent_bytes_ = 0;
  bool is_gone_ = false;         // the client has left, or was dropped
  bool is_half_closed_ = false;  // the client sends nothing more
  std::function<void()> on_disconnect_;
};

}  // namespace nanocp::http
