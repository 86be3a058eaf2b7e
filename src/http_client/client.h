// HTTP/1.1 requests to one server, as many at a time as wanted, from the one thread that runs the
// loop. Answers are handed on as their bytes come. Knows nothing of what is asked and answered.
//
// The loop's thread is the one inside run(). All functions but run(), post() and stop() are for
// that thread, or for the owner while nobody is inside run().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "http_client/url.h"

namespace nanocp::http_client {

struct Request {
  std::string method = "GET";
  std::string target;  // the path, as it goes over the wire
  std::vector<std::pair<std::string, std::string>> headers = {};
  std::string body = {};
};

// How an exchange ended.
enum class End {
  kComplete,           // the whole answer has come, whatever its status
  kNotConnected,       // refused, unreachable
  kConnectDeadline,    // no connection within its deadline
  kFirstByteDeadline,  // no byte of the answer's body within its deadline
  kDeadline,           // the whole exchange took too long
  kCut,                // the connection ended before the answer did
  kMalformed,          // not HTTP/1.1, or headers beyond the limit
  kCancelled,          // by cancel_all, or by the receiver
};
const char* to_string(End end);

// What one request gets to hear, in this order, on the loop's thread.
class Receiver {
 public:
  virtual ~Receiver() = default;
  // The status and the value of Content-Type.
  virtual void on_head(int status, std::string_view content_type) = 0;
  // Some bytes of the body. False ends the exchange as kCancelled and closes the connection.
  virtual bool on_body(std::string_view bytes, int64_t now_us) = 0;
  // Always comes, once, and last. `detail` says more where `end` is not kComplete.
  virtual void on_end(End end, const std::string& detail, int64_t now_us) = 0;
};

struct Options {
  Url server;
  int64_t connect_deadline_us = 10'000'000;
  int64_t first_byte_deadline_us = 600'000'000;  // from the start of the exchange
  int64_t deadline_us = 1'800'000'000;           // the same
  size_t num_idle_max = 4096;                    // connections kept for later requests
};

class Client {
 public:
  explicit Client(Options options);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Looks up the server's name; send() needs it. Blocks. Names the host where that fails.
  Status resolve();

  // Takes part in the loop until stop(). At most one thread at a time.
  void run();
  // Any thread. What is under way stays as it is until the client is destroyed.
  void stop();
  // Any thread: `task` runs in the loop, after what was posted before.
  void post(std::function<void()> task);
  // `task` runs at that time of SteadyClock, or as soon as possible after it.
  void at(int64_t time_us, std::function<void()> task);

  void send(Request request, std::shared_ptr<Receiver> receiver);
  // Ends all that is under way as kCancelled, from the loop.
  void cancel_all();

 private:
  class Loop;
  std::unique_ptr<Loop> loop_;
};

}  // namespace nanocp::http_client
