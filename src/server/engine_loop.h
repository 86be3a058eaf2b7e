// The one thread that owns an Engine: takes requests and cancellations from any thread, has steps
// carried out while there is work, sleeps while there is none, and hands tokens to their clients on
// delivery threads, so that writing answers never delays a step. See server/CONTRACT.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "engine/engine.h"
#include "server/cluster_snapshot.h"
#include "server/engine_observer.h"

namespace nanocp::server {

// Names what one submit() asked for; never reused.
using TicketId = uint64_t;

// Who gets the tokens of a ticket. Its functions are called in this order, by one delivery thread
// at a time, and must not block:
//   admitted, token... (any number)    or    refused    ; failed may follow at any time and is
//   last, even after the last token.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // All sequences of the ticket are in the engine's queue.
  virtual void admitted(TicketId ticket) = 0;
  // The engine can never run one of them; none is queued.
  virtual void refused(const Error& error) = 0;
  // The next token of request `index` of the ticket. The last one has a finish reason; a request
  // that was cancelled gets none.
  virtual void token(size_t index, engine::TokenEvent& event) = 0;
  // All that are open have ended: the engine failed or hangs, or the server shuts down.
  virtual void failed(const Error& error) = 0;
};

struct EngineLoopOptions {
  int64_t max_waiting = 1024;  // sequences in the queue; beyond, submit() refuses
  int64_t max_waiting_tokens = int64_t{1} << 24;  // of their prompts; likewise
  int num_delivery_threads = 1;
  double step_timeout_s = 60.0;      // a longer step means that the engine hangs
  double snapshot_interval_s = 0.2;  // while there is work
};

enum class EngineState {
  kRunning,
  kDraining,  // finishes what it has, takes nothing new
  kStopped,
  kFailed,  // the engine returned an error, or a step took longer than step_timeout_s
};

struct EngineHealth {
  EngineState state = EngineState::kRunning;
  std::string reason = {};  // of kFailed
  bool is_alive() const { return state != EngineState::kFailed; }
};

class EngineLoop {
 public:
  // The engine is touched by the loop's thread alone until stop() has returned. `clock` is that of
  // the engine. `observer` may be null. Requires: all outlive the loop.
  EngineLoop(EngineLoopOptions options, engine::Engine& engine, const Clock& clock,
             EngineObserver* observer);
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;
  ~EngineLoop();  // stop()

  // The functions below may be called from any thread.

  // Hands requests to the engine, all or none. Errors: kResourceExhausted when the queue is full,
  // kAborted while draining or after a failure; the sink is not called then. `requests` have
  // passed engine::check_request where that was possible. `request_id` is for observers.
  Result<TicketId> submit(std::vector<request::Request> requests, std::string request_id,
                          std::shared_ptr<TokenSink> sink);
  // The client wants no more: all of the ticket ends before the next step, and its sink is not
  // called again once its present call has returned.
  void cancel(TicketId ticket);
  // The answer of one request is complete before its last token (a stop string was found). Tokens
  // of it that are under way may still be delivered.
  void end(TicketId ticket, size_t index);

  EngineHealth health() const;
  // Sequences that wait, those on their way to the engine included.
  int64_t num_waiting() const;
  // Open tickets.
  int64_t num_open() const;
  // The latest; never null.
  std::shared_ptr<const ClusterSnapshot> snapshot() const;

  // submit() refuses from now on; what is open goes on.
  void begin_drain();
  // Waits until nothing is open or the engine has failed; false when that took longer.
  bool wait_idle(double timeout_s) const;
  // Fails what is open with `reason` and ends the threads. Waits for a step that hangs.
  void stop(const std::string& reason);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace nanocp::server
