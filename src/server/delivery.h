// Hands what the engine's thread has made to the sinks of tickets, on threads of its own: one for
// each ticket, in order. The engine's thread waits only when it is far ahead.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "server/engine_loop.h"

namespace nanocp::server {

// What one submit() asked for.
struct Ticket {
  // Constant after construction.
  TicketId id = 0;
  std::string request_id;
  std::shared_ptr<TokenSink> sink;
  int64_t arrival_us = 0;
  int64_t num_prompt_tokens = 0;  // of all its requests

  // Any thread: nothing is delivered any more.
  std::atomic<bool> is_cancelled{false};

  // The engine's thread's own.
  std::vector<request::Request> requests;  // until the engine has them
  std::vector<SequenceId> sequences;       // 0: has ended
  size_t num_open = 0;

  // The delivery thread's own.
  bool is_over = false;
};

struct Delivery {
  enum class Kind { kAdmitted, kRefused, kToken, kFailed };
  Kind kind = Kind::kToken;
  std::shared_ptr<Ticket> ticket;
  size_t index = 0;          // of a token
  engine::TokenEvent event;  // of a token
  Error error;               // kRefused, kFailed
  bool is_last = false;      // nothing follows for the ticket
};

class DeliveryThreads {
 public:
  struct Hooks {
    // The ticket's last delivery is done.
    std::function<void(const Ticket&)> over;
    // A sink threw; it is told that the request failed.
    std::function<void(const Ticket&, const std::string& what)> broken;
  };
  DeliveryThreads(int num_threads, Hooks hooks);
  DeliveryThreads(const DeliveryThreads&) = delete;
  DeliveryThreads& operator=(const DeliveryThreads&) = delete;
  ~DeliveryThreads();  // stop()

  // Any thread. Returns at once.
  void push(Delivery delivery);
  // The engine's thread: what one step made. Waits while a delivery thread is far behind.
  void push_step(std::vector<Delivery> deliveries);
  // Delivers what has been pushed and ends the threads.
  void stop();

 private:
  struct Shard {
    std::mutex mutex;
    std::condition_variable changed;
    // Guarded by mutex.
    std::vector<Delivery> queue;
    bool stopping = false;
    // Of the thread.
    std::thread thread;
    // Of push_step.
    std::vector<Delivery> gathered;
  };

  Shard& shard_of(const Ticket& ticket);
  void work(Shard& shard);
  void deliver(Delivery& delivery);
  void report_broken(Ticket& ticket, const std::string& what);
  void call_sink(Delivery& delivery);

  const Hooks hooks_;
  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace nanocp::server
