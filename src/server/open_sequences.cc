#include "server/open_sequences.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace nanocp::server {

using request::FinishReason;

namespace {

int64_t num_rows_of(std::span<const scheduler::InstanceWorkCount> work) {
  int64_t sum = 0;
  for (const scheduler::InstanceWorkCount& instance : work) sum += instance.num_rows;
  return sum;
}

}  // namespace

OpenSequences::OpenSequences(engine::Engine& engine, EngineObserver* observer)
    : engine_(engine), observer_(observer) {}

Status OpenSequences::admit(const std::shared_ptr<Ticket>& ticket) {
  std::vector<Open> opened;
  for (size_t i = 0; i < ticket->requests.size(); ++i) {
    request::Request& request = ticket->requests[i];
    Open open{.ticket = ticket, .record = {}};
    open.record.request_id = ticket->request_id;
    open.record.index = i;
    open.record.num_prompt_tokens = static_cast<int64_t>(request.prompt.size());
    open.record.max_tokens = request.max_tokens;
    open.record.arrival_us = ticket->arrival_us;
    const auto id = engine_.add_request(std::move(request));
    if (!id.ok()) {
      for (const Open& other : opened) engine_.cancel(other.record.sequence);
      return id.error();
    }
    open.record.sequence = *id;
    opened.push_back(std::move(open));
  }
  ticket->requests.clear();
  ticket->num_open = opened.size();
  for (Open& open : opened) {
    const SequenceId id = open.record.sequence;
    ticket->sequences.push_back(id);
    unscheduled_.push_back(id);
    num_waiting_tokens_ += open.record.num_prompt_tokens;
    open_.emplace(id, std::move(open));
  }
  return ok_status();
}

void OpenSequences::end(Ticket& ticket, size_t index, FinishReason reason, int64_t now_us) {
  if (index >= ticket.sequences.size()) return;
  const auto found = open_.find(ticket.sequences[index]);
  if (found == open_.end()) return;
  found->second.record.summary = summary_of(found->first);
  tokens_.num_preemptions += found->second.record.summary.num_preemptions;
  engine_.cancel(found->first);
  Open open = std::move(found->second);
  open_.erase(found);
  ++(reason == FinishReason::kStop ? requests_.num_finished : requests_.num_cancelled);
  close(std::move(open), reason, now_us);
}

// As the engine does for those that end by a token.
engine::SequenceSummary OpenSequences::summary_of(SequenceId id) const {
  engine::SequenceSummary summary;
  if (const request::Sequence* sequence = engine_.sequence(id)) {
    summary.binding = sequence->binding;
    summary.num_preemptions = sequence->num_preemptions;
  }
  if (const kvcache::KvPlacement* placement = engine_.placement(id)) {
    for (const kvcache::Shard& shard : placement->shards()) {
      summary.kv_tokens.emplace_back(shard.holder, shard.num_tokens);
    }
  }
  return summary;
}

// Requires: the sequence is no longer in open_.
void OpenSequences::close(Open open, FinishReason reason, int64_t now_us) {
  leave_queue(open.record);
  open.record.finish_reason = reason;
  open.record.end_us = now_us;
  open.ticket->sequences[open.record.index] = 0;
  --open.ticket->num_open;
  if (observer_ != nullptr) observer_->on_end(open.record);
}

void OpenSequences::count_refused(size_t num_sequences) {
  requests_.num_refused += static_cast<int64_t>(num_sequences);
}

// Who got the first row in this step: fewer wait than have had none.
void OpenSequences::note_scheduled(int64_t start_us) {
  if (unscheduled_.size() <= engine_.scheduler().num_waiting()) return;
  std::erase_if(unscheduled_, [&](SequenceId id) {
    const auto found = open_.find(id);
    if (found == open_.end()) return true;
    const request::Sequence* sequence = engine_.sequence(id);
    if (sequence != nullptr && sequence->status == request::SequenceStatus::kWaiting) return false;
    leave_queue(found->second.record);
    found->second.record.scheduled_us = start_us;
    return true;
  });
}

void OpenSequences::leave_queue(const SequenceRecord& record) {
  if (record.scheduled_us < 0) num_waiting_tokens_ -= record.num_prompt_tokens;
}

std::vector<Delivery> OpenSequences::take_events(std::vector<engine::TokenEvent> events,
                                                 const StepTimes& times) {
  std::vector<Delivery> deliveries;
  deliveries.reserve(events.size());
  inter_token_s_.clear();
  first_token_s_.clear();
  note_scheduled(times.start_us);
  for (engine::TokenEvent& event : events) take_event(event, times.end_us, deliveries);

  const double step_s = static_cast<double>(times.end_us - times.start_us) * 1e-6;
  const double weight = tokens_.num_steps == 0 ? 1.0 : 1.0 - std::exp(-step_s);
  mean_step_s_ += weight * (step_s - mean_step_s_);
  tokens_.num_steps = engine_.num_steps();
  if (observer_ != nullptr) {
    observer_->on_step({.start_us = times.start_us,
                        .end_us = times.end_us,
                        .num_rows = num_rows_of(engine_.last_work()),
                        .num_tokens = static_cast<int64_t>(deliveries.size()),
                        .inter_token_s = inter_token_s_,
                        .first_token_s = first_token_s_,
                        .spans = engine_.last_spans()});
  }
  return deliveries;
}

void OpenSequences::take_event(engine::TokenEvent& event, int64_t end_us,
                               std::vector<Delivery>& deliveries) {
  const auto found = open_.find(event.sequence);
  if (found == open_.end()) return;
  SequenceRecord& record = found->second.record;
  if (record.num_output_tokens == 0) {
    record.first_token_us = end_us;
    first_token_s_.push_back(static_cast<double>(end_us - record.arrival_us) * 1e-6);
    tokens_.num_prompt_tokens += record.num_prompt_tokens;
  } else {
    inter_token_s_.push_back(static_cast<double>(end_us - record.last_token_us) * 1e-6);
  }
  record.last_token_us = end_us;
  ++record.num_output_tokens;
  ++tokens_.num_output_tokens;

  Delivery delivery{.kind = Delivery::Kind::kToken,
                    .ticket = found->second.ticket,
                    .index = record.index,
                    .event = std::move(event),
                    .error = {},
                    .is_last = false};
  const FinishReason reason = delivery.event.finish_reason;
  if (reason != FinishReason::kNone) {
    Open open = std::move(found->second);
    open_.erase(found);
    if (delivery.event.summary) {
      open.record.summary = *delivery.event.summary;
      tokens_.num_preemptions += open.record.summary.num_preemptions;
    }
    ++requests_.num_finished;
    close(std::move(open), reason, end_us);
    delivery.is_last = delivery.ticket->num_open == 0;
  }
  deliveries.push_back(std::move(delivery));
}

void OpenSequences::fail_all(int64_t now_us) {
  for (auto& [id, open] : std::exchange(open_, {})) {
    close(std::move(open), FinishReason::kError, now_us);
  }
  unscheduled_.clear();
}

ClusterSnapshot OpenSequences::snapshot(int64_t now_us) const {
  ClusterSnapshot snapshot;
  snapshot.time_us = now_us;
  snapshot.block_size = engine_.scheduler().options().block_size;
  snapshot.policy = engine_.scheduler().policy().name();
  snapshot.requests = requests_;
  snapshot.requests.num_waiting = static_cast<int64_t>(engine_.scheduler().num_waiting());
  snapshot.requests.num_running = static_cast<int64_t>(engine_.scheduler().num_running());
  snapshot.tokens = tokens_;
  fill_instances(snapshot);
  fill_sequences(snapshot);
  fill_step(snapshot);
  return snapshot;
}

void OpenSequences::fill_instances(ClusterSnapshot& snapshot) const {
  const auto work = engine_.last_work();
  const bool is_idle = open_.empty();
  for (const scheduler::InstanceLoad& load : engine_.loads()) {
    InstanceSnapshot& instance = snapshot.instances.emplace_back();
    const size_t i = snapshot.instances.size() - 1;
    instance.num_blocks = load.num_blocks;
    instance.num_used_blocks = load.num_used_blocks();
    instance.num_kv_tokens = load.num_kv_tokens;
    instance.num_sequences = load.num_sequences;
    if (is_idle || i >= work.size()) continue;
    instance.num_rows = work[i].num_rows;
    instance.num_routed_queries = work[i].routes.near_queries + work[i].routes.far_queries;
    instance.num_attended_kv_tokens = work[i].num_kv_tokens + work[i].num_pairs;
  }
}

void OpenSequences::fill_sequences(ClusterSnapshot& snapshot) const {
  std::vector<LongRequest>& longest = snapshot.long_requests;
  const auto is_longer = [](const LongRequest& a, const LongRequest& b) {
    return a.num_kv_tokens > b.num_kv_tokens;
  };
  for (const auto& [id, open] : open_) {
    const kvcache::KvPlacement* placement = engine_.placement(id);
    if (placement == nullptr || placement->num_blocks() == 0) continue;
    const auto degree = static_cast<size_t>(placement->degree());
    if (snapshot.num_by_degree.size() <= degree) snapshot.num_by_degree.resize(degree + 1);
    ++snapshot.num_by_degree[degree];
    const bool is_long =
        longest.size() < kLongRequestsMax || placement->num_tokens() > longest.back().num_kv_tokens;
    if (!is_long) continue;
    LongRequest request{.sequence = id,
                        .binding = engine_.sequence(id)->binding,
                        .num_prompt_tokens = open.record.num_prompt_tokens,
                        .num_output_tokens = open.record.num_output_tokens,
                        .num_kv_tokens = placement->num_tokens(),
                        .arrival_us = open.record.arrival_us,
                        .kv_tokens = {}};
    for (const kvcache::Shard& shard : placement->shards()) {
      if (shard.num_tokens > 0) request.kv_tokens.emplace_back(shard.holder, shard.num_tokens);
    }
    longest.insert(std::upper_bound(longest.begin(), longest.end(), request, is_longer),
                   std::move(request));
    if (longest.size() > kLongRequestsMax) longest.pop_back();
  }
}

void OpenSequences::fill_step(ClusterSnapshot& snapshot) const {
  StepSnapshot& step = snapshot.step;
  step.duration_ms = static_cast<double>(engine_.last_duration_us()) * 1e-3;
  step.mean_ms = mean_step_s_ * 1e3;
  int64_t sum = 0;
  int64_t most = 0;
  for (const InstanceSnapshot& instance : snapshot.instances) {
    sum += instance.num_attended_kv_tokens;
    most = std::max(most, instance.num_attended_kv_tokens);
  }
  if (sum > 0) {
    step.slowest_over_mean = static_cast<double>(most) *
                             static_cast<double>(snapshot.instances.size()) /
                             static_cast<double>(sum);
  }
  const auto spans = engine_.last_spans();
  step.has_phases = !spans.empty();
  for (const auto& instance : spans) {
    for (const engine::PhaseSpan& span : instance) {
      step.phase_ms[static_cast<size_t>(span.phase)] +=
          span.duration_us * 1e-3 / static_cast<double>(spans.size());
    }
  }
}

}  // namespace nanocp::server
