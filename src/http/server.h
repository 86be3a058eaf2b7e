// An HTTP/1.1 server that knows nothing of models: keep-alive and pipelining, limits and deadlines
// on all that comes in, bounded memory for what goes out. A few threads serve any number of
// connections; handlers run on threads of their own. See docs/decisions/0022-http-server.md.
//
// What the server answers itself, in the form of Options::error_body: 400 (not HTTP), 408 (header
// or body late), 413 (body too large), 417, 431 (header too large), 500 (a handler that threw or
// never answered), 501 (transfer coding), 503 (too many connections), 505.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "http/message.h"
#include "http/response.h"

namespace nanocp::http {

// One request and what became of it, for the access log and metrics.
struct Exchange {
  std::string id;
  std::string remote;
  std::string method;  // empty when the header could not be read
  std::string path;
  int status = 0;             // 0: the client left before there was one
  int64_t request_bytes = 0;  // of the body
  int64_t response_bytes = 0;
  int64_t duration_us = 0;  // from the first byte of the request to the last of the answer
  bool complete = true;     // false: cut off by the client or a deadline
};

struct Options {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;  // 0: any free one
  int num_io_threads = 2;
  int num_handler_threads = 2;
  int max_connections = 16384;  // as many as RLIMIT_NOFILE allows at most
  int64_t header_bytes_max = 32 * 1024;
  int32_t num_headers_max = 100;
  int64_t body_bytes_max = 64 << 20;
  int64_t all_bodies_bytes_max = int64_t{1} << 30;  // of all connections together; beyond: 503
  // Unread by the client, of one connection; more drops it.
  int64_t unsent_bytes_max = 16 << 20;
  double header_timeout_s = 30.0;  // from the first byte of a request to the end of its header
  double body_timeout_s = 120.0;   // from there to the end of its body
  double idle_timeout_s = 300.0;   // between requests
  double write_timeout_s = 60.0;   // for the client to take up to 256 KiB
  // The body of an error, with its Content-Type.
  std::function<std::string(int status, const std::string& message)> error_body = {};
  std::string error_content_type = "text/plain; charset=utf-8";
  // Called after each exchange, on an I/O thread: must be quick. May be empty.
  std::function<void(const Exchange&)> on_exchange = {};
};

struct Counters {
  int64_t num_connections = 0;  // open
  int64_t num_refused = 0;      // for want of room, so far
  int64_t num_requests = 0;     // so far
};

// Called on one of the handler threads; may take its time, but others wait meanwhile. Answers now
// or later, from any thread.
using Handler = std::function<void(Request, std::shared_ptr<Response>)>;

class Server {
 public:
  // Binds and starts to serve, or says why it cannot.
  static Result<std::unique_ptr<Server>> start(Options options, Handler handler);
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  ~Server();  // stop(0)

  const std::string& host() const;
  uint16_t port() const;
  int max_connections() const;  // in force
  Counters counters() const;

  // From now on every answer closes its connection, and idle ones are closed.
  void begin_drain();
  // Accepts nothing more, gives open answers `timeout_s` to get out, closes all, ends the threads.
  // No handler runs when it returns. Requires: not called on a thread of the server.
  void stop(double timeout_s);

 private:
  class Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanocp::http
