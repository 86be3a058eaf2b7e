#include "http/core.h"

#include <chrono>

#include "http/connection.h"

namespace nanocp::http {

Core::Core(Options server_options, Handler request_handler)
    : options(std::move(server_options)),
      handler(std::move(request_handler)),
      io(options.num_io_threads),
      handler_threads(static_cast<size_t>(options.num_handler_threads)) {}

void Core::add(const std::shared_ptr<Connection>& connection) {
  const std::scoped_lock lock(mutex_);
  connections_.emplace(connection.get(), connection);
}

void Core::remove(const Connection* connection) {
  const std::scoped_lock lock(mutex_);
  connections_.erase(connection);
  if (connections_.empty()) is_empty_.notify_all();
}

bool Core::wait_no_connections(double timeout_s) const {
  std::unique_lock lock(mutex_);
  return is_empty_.wait_for(lock, std::chrono::duration<double>(timeout_s),
                            [this] { return connections_.empty(); });
}

int64_t Core::num_connections() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int64_t>(connections_.size());
}

std::vector<std::shared_ptr<Connection>> Core::connections() const {
  std::vector<std::shared_ptr<Connection>> result;
  const std::scoped_lock lock(mutex_);
  result.reserve(connections_.size());
  for (const auto& [key, weak] : connections_) {
    if (auto connection = weak.lock()) result.push_back(std::move(connection));
  }
  return result;
}

std::string Core::error_body(int status, const std::string& message) const {
  return options.error_body ? options.error_body(status, message) : message + "\n";
}

}  // namespace nanocp::http
