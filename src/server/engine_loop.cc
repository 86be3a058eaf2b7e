#include "server/engine_loop.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>

#include "server/delivery.h"
#include "server/open_sequences.h"

namespace nanocp::server {

using request::FinishReason;

class EngineLoop::Impl {
 public:
  Impl(EngineLoopOptions options, engine::Engine& engine, const Clock& clock,
       EngineObserver* observer);
  ~Impl() { stop("the server is shutting down"); }

  Result<TicketId> submit(std::vector<request::Request> requests, std::string request_id,
                          std::shared_ptr<TokenSink> sink);
  void cancel(TicketId id);
  void end(TicketId id, size_t index);
  EngineHealth health() const;
  int64_t num_waiting() const;
  int64_t num_open() const;
  std::shared_ptr<const ClusterSnapshot> snapshot() const;
  void begin_drain();
  bool wait_idle(double timeout_s) const;
  void stop(const std::string& reason);

 private:
  enum class Action { kSubmit, kCancel, kEnd };
  struct Command {
    Action action;
    std::shared_ptr<Ticket> ticket;
    size_t index = 0;  // kEnd
  };

  // On the engine's thread.
  void run();
  bool take_commands(std::vector<Command>& commands);
  void apply(Command& command);
  void admit(const std::shared_ptr<Ticket>& ticket);
  std::vector<Delivery> step();
  void publish(bool is_due);

  void watch();
  bool is_over() const { return state_ == EngineState::kStopped || state_ == EngineState::kFailed; }
  void fail(const std::string& reason);
  void end_all(EngineState state, const std::string& reason);
  Status check_queue() const;
  void push_command(Command command);
  void note_queue();
  void forget(TicketId id);

  // Constant after construction.
  const EngineLoopOptions options_;
  const Clock& clock_;
  EngineObserver* const observer_;

  // The engine thread's own.
  engine::Engine& engine_;
  OpenSequences sequences_;
  int64_t published_us_ = 0;

  // Own synchronisation.
  std::atomic<int64_t> step_start_us_{-1};     // -1: none is under way
  std::atomic<int64_t> num_queued_{0};         // sequences in the engine's queue
  std::atomic<int64_t> num_queued_tokens_{0};  // of prompts that have had no row
  DeliveryThreads delivery_;

  mutable std::mutex mutex_;
  std::condition_variable wake_engine_;
  std::condition_variable wake_watch_;
  mutable std::condition_variable is_idle_;
  // Guarded by mutex_.
  EngineState state_ = EngineState::kRunning;
  std::string reason_;
  std::vector<Command> commands_;
  std::unordered_map<TicketId, std::shared_ptr<Ticket>> tickets_;  // open
  int64_t num_pending_ = 0;         // sequences in commands_ or being admitted
  int64_t num_pending_tokens_ = 0;  // of their prompts
  int64_t num_turned_away_ = 0;     // sequences, for want of room in the queue
  TicketId next_id_ = 1;
  std::shared_ptr<const ClusterSnapshot> snapshot_;

  std::thread engine_thread_;
  std::thread watch_thread_;
};

EngineLoop::Impl::Impl(EngineLoopOptions options, engine::Engine& engine, const Clock& clock,
                       EngineObserver* observer)
    : options_(options),
      clock_(clock),
      observer_(observer),
      engine_(engine),
      sequences_(engine, observer),
      delivery_(options.num_delivery_threads,
                {.over = [this](const Ticket& ticket) { forget(ticket.id); },
                 .broken =
                     [this](const Ticket& ticket, const std::string& what) {
                       std::fprintf(stderr, "error: request %s: %s\n", ticket.request_id.c_str(),
                                    what.c_str());
                       cancel(ticket.id);
                     }}) {
  snapshot_ = std::make_shared<const ClusterSnapshot>(sequences_.snapshot(clock_.now_us()));
  engine_thread_ = std::thread([this] { run(); });
  watch_thread_ = std::thread([this] { watch(); });
}

Result<TicketId> EngineLoop::Impl::submit(std::vector<request::Request> requests,
                                          std::string request_id, std::shared_ptr<TokenSink> sink) {
  const auto num_sequences = static_cast<int64_t>(requests.size());
  auto ticket = std::make_shared<Ticket>();
  for (const request::Request& request : requests) {
    ticket->num_prompt_tokens += static_cast<int64_t>(request.prompt.size());
  }
  ticket->request_id = std::move(request_id);
  ticket->sink = std::move(sink);
  ticket->requests = std::move(requests);
  ticket->arrival_us = clock_.now_us();
  const std::scoped_lock lock(mutex_);
  if (state_ == EngineState::kFailed) return Error{ErrorCode::kAborted, reason_};
  if (state_ != EngineState::kRunning) {
    return Error{ErrorCode::kAborted, "the server is shutting down"};
  }
  const Status has_room = check_queue();
  if (!has_room.ok()) {
    num_turned_away_ += num_sequences;
    return has_room.error();
  }
  ticket->id = next_id_++;
  num_pending_ += num_sequences;
  num_pending_tokens_ += ticket->num_prompt_tokens;
  tickets_.emplace(ticket->id, ticket);
  const TicketId id = ticket->id;
  push_command({.action = Action::kSubmit, .ticket = std::move(ticket)});
  return id;
}

// Requires: mutex_ is held.
Status EngineLoop::Impl::check_queue() const {
  const auto refusal = [](int64_t count, const char* what, int64_t limit) {
    return resource_exhausted("the queue is full: " + std::to_string(count) + what +
                              " wait, at most " + std::to_string(limit) + " may; try again later");
  };
  const int64_t num_ahead = num_queued_ + num_pending_;
  if (num_ahead >= options_.max_waiting) {
    return refusal(num_ahead, " requests", options_.max_waiting);
  }
  const int64_t num_tokens = num_queued_tokens_ + num_pending_tokens_;
  if (num_tokens >= options_.max_waiting_tokens) {
    return refusal(num_tokens, " prompt tokens", options_.max_waiting_tokens);
  }
  return ok_status();
}

// Requires: mutex_ is held.
void EngineLoop::Impl::push_command(Command command) {
  commands_.push_back(std::move(command));
  wake_engine_.notify_one();
}

void EngineLoop::Impl::cancel(TicketId id) {
  const std::scoped_lock lock(mutex_);
  const auto found = tickets_.find(id);
  if (found == tickets_.end()) return;
  found->second->is_cancelled = true;
  push_command({.action = Action::kCancel, .ticket = std::move(found->second)});
  tickets_.erase(found);
  if (tickets_.empty()) is_idle_.notify_all();
}

void EngineLoop::Impl::end(TicketId id, size_t index) {
  const std::scoped_lock lock(mutex_);
  const auto found = tickets_.find(id);
  if (found == tickets_.end()) return;
  push_command({.action = Action::kEnd, .ticket = found->second, .index = index});
}

void EngineLoop::Impl::forget(TicketId id) {
  const std::scoped_lock lock(mutex_);
  tickets_.erase(id);
  if (tickets_.empty()) is_idle_.notify_all();
}

EngineHealth EngineLoop::Impl::health() const {
  const std::scoped_lock lock(mutex_);
  return {.state = state_, .reason = reason_};
}

int64_t EngineLoop::Impl::num_waiting() const {
  const std::scoped_lock lock(mutex_);
  return num_queued_ + num_pending_;
}

int64_t EngineLoop::Impl::num_open() const {
  const std::scoped_lock lock(mutex_);
  return static_cast<int64_t>(tickets_.size());
}

std::shared_ptr<const ClusterSnapshot> EngineLoop::Impl::snapshot() const {
  const std::scoped_lock lock(mutex_);
  return snapshot_;
}

void EngineLoop::Impl::begin_drain() {
  const std::scoped_lock lock(mutex_);
  if (state_ == EngineState::kRunning) state_ = EngineState::kDraining;
}

bool EngineLoop::Impl::wait_idle(double timeout_s) const {
  std::unique_lock lock(mutex_);
  return is_idle_.wait_for(lock, std::chrono::duration<double>(timeout_s),
                           [this] { return tickets_.empty() || is_over(); });
}

void EngineLoop::Impl::run() {
  std::vector<Command> commands;
  while (take_commands(commands)) {
    for (Command& command : commands) apply(command);
    commands.clear();
    std::vector<Delivery> deliveries;
    if (engine_.has_work()) deliveries = step();
    note_queue();
    // First: whoever has got an answer finds it counted.
    publish(!engine_.has_work());
    delivery_.push_step(std::move(deliveries));
  }
}

// Sleeps while there is nothing to do; false when the loop is over.
bool EngineLoop::Impl::take_commands(std::vector<Command>& commands) {
  std::unique_lock lock(mutex_);
  // Ends with the next command or with stop(): an idle engine waits for nobody in particular.
  wake_engine_.wait(lock, [this] { return !commands_.empty() || is_over() || engine_.has_work(); });
  commands.swap(commands_);
  return !is_over();
}

void EngineLoop::Impl::apply(Command& command) {
  const std::shared_ptr<Ticket>& ticket = command.ticket;
  switch (command.action) {
    case Action::kSubmit:
      admit(ticket);
      break;
    case Action::kCancel:
      for (size_t i = 0; i < ticket->sequences.size(); ++i) {
        sequences_.end(*ticket, i, FinishReason::kCancelled, clock_.now_us());
      }
      break;
    case Action::kEnd:
      sequences_.end(*ticket, command.index, FinishReason::kStop, clock_.now_us());
      // No further token will tell that the ticket is complete.
      if (ticket->num_open == 0) forget(ticket->id);
      break;
  }
}

void EngineLoop::Impl::admit(const std::shared_ptr<Ticket>& ticket) {
  const auto num_sequences = static_cast<int64_t>(ticket->requests.size());
  if (!ticket->is_cancelled) {
    const Status status = sequences_.admit(ticket);
    Delivery delivery{.kind = Delivery::Kind::kAdmitted,
                      .ticket = ticket,
                      .index = 0,
                      .event = {},
                      .error = {},
                      .is_last = false};
    if (!status.ok()) {
      sequences_.count_refused(static_cast<size_t>(num_sequences));
      delivery.kind = Delivery::Kind::kRefused;
      delivery.error = status.error();
      delivery.is_last = true;
    }
    delivery_.push(std::move(delivery));
  }
  const std::scoped_lock lock(mutex_);
  note_queue();
  num_pending_ -= num_sequences;
  num_pending_tokens_ -= ticket->num_prompt_tokens;
}

void EngineLoop::Impl::note_queue() {
  num_queued_ = static_cast<int64_t>(engine_.scheduler().num_waiting());
  num_queued_tokens_ = sequences_.num_waiting_tokens();
}

std::vector<Delivery> EngineLoop::Impl::step() {
  const int64_t start_us = clock_.now_us();
  step_start_us_ = start_us;
  const uint64_t num_steps = engine_.num_steps();
  auto events = engine_.step();
  step_start_us_ = -1;
  if (!events.ok()) {
    fail("the engine has failed: " + events.error().message);
    return {};
  }
  if (engine_.num_steps() == num_steps && engine_.has_work()) {
    fail("the engine has requests but plans no step");
    return {};
  }
  return sequences_.take_events(std::move(*events),
                                {.start_us = start_us, .end_us = clock_.now_us()});
}

void EngineLoop::Impl::publish(bool is_due) {
  const int64_t now_us = clock_.now_us();
  const auto interval_us = static_cast<int64_t>(options_.snapshot_interval_s * 1e6);
  if (!is_due && now_us - published_us_ < interval_us) return;
  published_us_ = now_us;
  auto snapshot = std::make_shared<ClusterSnapshot>(sequences_.snapshot(now_us));
  {
    const std::scoped_lock lock(mutex_);
    snapshot->requests.num_refused += num_turned_away_;
    snapshot_ = snapshot;
  }
  if (observer_ != nullptr) observer_->on_snapshot(*snapshot);
}

// A step that does not end leaves its clients waiting: they are told, and so is whoever asks for
// the engine's health.
void EngineLoop::Impl::watch() {
  const auto interval = std::chrono::duration<double>(options_.step_timeout_s / 8);
  std::unique_lock lock(mutex_);
  while (!wake_watch_.wait_for(lock, interval, [this] { return is_over(); })) {
    const int64_t start_us = step_start_us_;
    const double step_s = static_cast<double>(clock_.now_us() - start_us) * 1e-6;
    if (start_us < 0 || step_s < options_.step_timeout_s) continue;
    lock.unlock();
    char text[96];
    std::snprintf(text, sizeof(text), "the engine hangs: a step has not ended after %.1f s",
                  step_s);
    end_all(EngineState::kFailed, text);
    return;
  }
}

void EngineLoop::Impl::fail(const std::string& reason) {
  sequences_.fail_all(clock_.now_us());
  end_all(EngineState::kFailed, reason);
}

// Every open ticket hears of it, once.
void EngineLoop::Impl::end_all(EngineState state, const std::string& reason) {
  std::unordered_map<TicketId, std::shared_ptr<Ticket>> open;
  {
    const std::scoped_lock lock(mutex_);
    if (is_over()) return;
    state_ = state;
    if (state == EngineState::kFailed) reason_ = reason;
    open = tickets_;
  }
  if (state == EngineState::kFailed) std::fprintf(stderr, "error: %s\n", reason.c_str());
  wake_engine_.notify_all();
  wake_watch_.notify_all();
  is_idle_.notify_all();
  const auto code = state == EngineState::kFailed ? ErrorCode::kInternal : ErrorCode::kAborted;
  for (auto& [id, ticket] : open) {
    delivery_.push({.kind = Delivery::Kind::kFailed,
                    .ticket = std::move(ticket),
                    .index = 0,
                    .event = {},
                    .error = {code, reason},
                    .is_last = true});
  }
}

void EngineLoop::Impl::stop(const std::string& reason) {
  end_all(EngineState::kStopped, reason);
  if (engine_thread_.joinable()) engine_thread_.join();
  if (watch_thread_.joinable()) watch_thread_.join();
  delivery_.stop();
}

EngineLoop::EngineLoop(EngineLoopOptions options, engine::Engine& engine, const Clock& clock,
                       EngineObserver* observer)
    : impl_(std::make_unique<Impl>(options, engine, clock, observer)) {}

EngineLoop::~EngineLoop() = default;

Result<TicketId> EngineLoop::submit(std::vector<request::Request> requests, std::string request_id,
                                    std::shared_ptr<TokenSink> sink) {
  return impl_->submit(std::move(requests), std::move(request_id), std::move(sink));
}

void EngineLoop::cancel(TicketId ticket) {
  impl_->cancel(ticket);
}

void EngineLoop::end(TicketId ticket, size_t index) {
  impl_->end(ticket, index);
}

EngineHealth EngineLoop::health() const {
  return impl_->health();
}

int64_t EngineLoop::num_waiting() const {
  return impl_->num_waiting();
}

int64_t EngineLoop::num_open() const {
  return impl_->num_open();
}

std::shared_ptr<const ClusterSnapshot> EngineLoop::snapshot() const {
  return impl_->snapshot();
}

void EngineLoop::begin_drain() {
  impl_->begin_drain();
}

bool EngineLoop::wait_idle(double timeout_s) const {
  return impl_->wait_idle(timeout_s);
}

void EngineLoop::stop(const std::string& reason) {
  impl_->stop(reason);
}

}  // namespace nanocp::server
