// The sequences that the engine has, whose they are and how far they have come: turns the engine's
// events into deliveries, and counts for snapshots and observers. The engine thread's own.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine/engine.h"
#include "server/cluster_snapshot.h"
#include "server/delivery.h"
#include "server/engine_observer.h"

namespace nanocp::server {

struct StepTimes {
  int64_t start_us = 0;
  int64_t end_us = 0;
};

class OpenSequences {
 public:
  // `observer` may be null.
  OpenSequences(engine::Engine& engine, EngineObserver* observer);

  // Queues all requests of a ticket, or none and says why.
  Status admit(const std::shared_ptr<Ticket>& ticket);
  // Ends one sequence of a ticket, if it is open, with kCancelled or kStop.
  void end(Ticket& ticket, size_t index, request::FinishReason reason, int64_t now_us);
  // What a step has made, for the sinks.
  std::vector<Delivery> take_events(std::vector<engine::TokenEvent> events, const StepTimes& times);
  // The engine has failed: nothing is open any more.
  void fail_all(int64_t now_us);

  void count_refused(size_t num_sequences);
  // Of the prompts of those that have had no row yet.
  int64_t num_waiting_tokens() const { return num_waiting_tokens_; }
  ClusterSnapshot snapshot(int64_t now_us) const;

 private:
  struct Open {
    std::shared_ptr<Ticket> ticket;
    SequenceRecord record;
  };

  engine::SequenceSummary summary_of(SequenceId id) const;
  void note_scheduled(int64_t start_us);
  void leave_queue(const SequenceRecord& record);
  void take_event(engine::TokenEvent& event, int64_t end_us, std::vector<Delivery>& deliveries);
  void close(Open open, request::FinishReason reason, int64_t now_us);
  void fill_instances(ClusterSnapshot& snapshot) const;
  void fill_sequences(ClusterSnapshot& snapshot) const;
  void fill_step(ClusterSnapshot& snapshot) const;

  engine::Engine& engine_;
  EngineObserver* const observer_;
  std::unordered_map<SequenceId, Open> open_;
  std::vector<SequenceId> unscheduled_;  // have had no row yet; some may have ended
  int64_t num_waiting_tokens_ = 0;       // of open ones whose scheduled_us is -1
  RequestCounters requests_;
  TokenCounters tokens_;
  double mean_step_s_ = 0.0;           // decays over about a second
  std::vector<double> inter_token_s_;  // scratch
  std::vector<double> first_token_s_;  // scratch
};

}  // namespace nanocp::server
