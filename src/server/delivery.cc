#include "server/delivery.h"

#include <exception>
#include <utility>

namespace nanocp::server {
namespace {

// Deliveries that may wait for one thread: some dozens of steps of thousands of sequences.
constexpr size_t kQueuedMax = size_t{1} << 17;

}  // namespace

DeliveryThreads::DeliveryThreads(int num_threads, Hooks hooks) : hooks_(std::move(hooks)) {
  for (int i = 0; i < num_threads; ++i) {
    Shard& shard = *shards_.emplace_back(std::make_unique<Shard>());
    shard.thread = std::thread([this, &shard] { work(shard); });
  }
}

DeliveryThreads::~DeliveryThreads() {
  stop();
}

DeliveryThreads::Shard& DeliveryThreads::shard_of(const Ticket& ticket) {
  return *shards_[static_cast<size_t>(ticket.id) % shards_.size()];
}

void DeliveryThreads::push(Delivery delivery) {
  Shard& shard = shard_of(*delivery.ticket);
  {
    const std::scoped_lock lock(shard.mutex);
    shard.queue.push_back(std::move(delivery));
  }
  shard.changed.notify_all();
}

void DeliveryThreads::push_step(std::vector<Delivery> deliveries) {
  for (Delivery& delivery : deliveries) {
    Shard& shard = shard_of(*delivery.ticket);
    shard.gathered.push_back(std::move(delivery));
  }
  for (const auto& shard : shards_) {
    if (shard->gathered.empty()) continue;
    std::unique_lock lock(shard->mutex);
    // Sinks never block, so this ends.
    shard->changed.wait(lock, [&] { return shard->queue.size() < kQueuedMax || shard->stopping; });
    if (shard->queue.empty()) {
      shard->queue.swap(shard->gathered);
    } else {
      shard->queue.insert(shard->queue.end(), std::make_move_iterator(shard->gathered.begin()),
                          std::make_move_iterator(shard->gathered.end()));
    }
    shard->gathered.clear();
    lock.unlock();
    shard->changed.notify_all();
  }
}

void DeliveryThreads::stop() {
  for (const auto& shard : shards_) {
    {
      const std::scoped_lock lock(shard->mutex);
      shard->stopping = true;
    }
    shard->changed.notify_all();
    if (shard->thread.joinable()) shard->thread.join();
  }
}

void DeliveryThreads::work(Shard& shard) {
  std::vector<Delivery> batch;
  while (true) {
    {
      std::unique_lock lock(shard.mutex);
      shard.changed.wait(lock, [&] { return !shard.queue.empty() || shard.stopping; });
      if (shard.queue.empty()) return;
      batch.swap(shard.queue);
    }
    shard.changed.notify_all();
    for (Delivery& delivery : batch) deliver(delivery);
    batch.clear();
  }
}

void DeliveryThreads::deliver(Delivery& delivery) {
  Ticket& ticket = *delivery.ticket;
  if (ticket.is_over || ticket.is_cancelled) return;
  ticket.is_over = delivery.is_last;
  try {
    call_sink(delivery);
  } catch (const std::exception& error) {
    ticket.is_over = true;
    report_broken(ticket, error.what());
  }
  if (ticket.is_over) hooks_.over(ticket);
}

// One request's answer must not take the others with it.
void DeliveryThreads::report_broken(Ticket& ticket, const std::string& what) {
  hooks_.broken(ticket, what);
  try {
    ticket.sink->failed({ErrorCode::kInternal, "the answer could not be written"});
  } catch (const std::exception&) {  // NOLINT(bugprone-empty-catch): has been reported
  }
}

void DeliveryThreads::call_sink(Delivery& delivery) {
  TokenSink& sink = *delivery.ticket->sink;
  switch (delivery.kind) {
    case Delivery::Kind::kAdmitted:
      return sink.admitted(delivery.ticket->id);
    case Delivery::Kind::kRefused:
      return sink.refused(delivery.error);
    case Delivery::Kind::kToken:
      return sink.token(delivery.index, delivery.event);
    case Delivery::Kind::kFailed:
      return sink.failed(delivery.error);
  }
}

}  // namespace nanocp::server
