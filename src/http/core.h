// What all connections of one server share. Held by the server and by each connection, since
// responses, which hold their connection, may outlive the server. Any thread.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "http/server.h"

namespace nanocp::http {

class Connection;

struct Core {
  Core(Options server_options, Handler request_handler);

  // Constant after construction.
  const Options options;
  const Handler handler;

  // Own synchronisation.
  boost::asio::io_context io;
  boost::asio::thread_pool handler_threads;
  std::atomic<bool> draining{false};
  std::atomic<int64_t> body_bytes{0};  // of bodies being read or handled
  std::atomic<int64_t> num_refused{0};
  std::atomic<uint64_t> num_requests{0};

  void add(const std::shared_ptr<Connection>& connection);
  void remove(const Connection* connection);
  int64_t num_connections() const;
  // Whether all are gone before the time is up.
  bool wait_no_connections(double timeout_s) const;
  std::vector<std::shared_ptr<Connection>> connections() const;

  std::string error_body(int status, const std::string& message) const;

 private:
  mutable std::mutex mutex_;
  mutable std::condition_variable is_empty_;
  // Guarded by mutex_.
  std::unordered_map<const Connection*, std::weak_ptr<Connection>> connections_;
};

}  // namespace nanocp::http
