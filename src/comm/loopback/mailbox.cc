#include "comm/loopback/mailbox.h"

#include <thread>

namespace nanocp::comm {
namespace {

// Looks at a flag this often before going to sleep: an exchange between running threads takes less
// than a wake-up, and with more threads than cores sleeping lets the awaited one run.
constexpr int kSpins = 256;

}  // namespace

WaitRoom::WaitRoom(int num_instances, int64_t timeout_us) : timeout_us_(timeout_us) {
  for (int i = 0; i < num_instances; ++i) bells_.push_back(std::make_unique<Bell>());
}

Status WaitRoom::wait_for(const std::atomic<uint64_t>& flag, const Wait& wait) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (flag.load(std::memory_order_acquire) >= wait.epoch) return ok_status();
  }
  Bell& bell = *bells_[static_cast<size_t>(wait.waiter)];
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(timeout_us_);
  std::unique_lock lock(bell.mutex);
  // Sequentially consistent with ring(): either it sees the sleeper or we see the flag.
  bell.num_sleeping.fetch_add(1);
  const bool woken = bell.rung.wait_until(
      lock, deadline, [&] { return flag.load() >= wait.epoch || aborted_.load(); });
  bell.num_sleeping.fetch_sub(1);
  lock.unlock();
  if (flag.load(std::memory_order_acquire) >= wait.epoch) return ok_status();
  if (woken) return abort_error();
  return timeout_error(flag, wait);
}

void WaitRoom::ring(InstanceId instance) {
  Bell& bell = *bells_[static_cast<size_t>(instance)];
  if (bell.num_sleeping.load() == 0) return;
  { std::lock_guard lock(bell.mutex); }
  bell.rung.notify_all();
}

void WaitRoom::abort(const std::string& message) {
  {
    std::lock_guard lock(abort_mutex_);
    if (aborted_.load()) return;
    abort_message_ = message;
    aborted_.store(true);
  }
  for (auto& bell : bells_) {
    { std::lock_guard lock(bell->mutex); }
    bell->rung.notify_all();
  }
}

Error WaitRoom::abort_error() {
  std::lock_guard lock(abort_mutex_);
  return {ErrorCode::kAborted, "stopped because another instance failed: " + abort_message_};
}

Error WaitRoom::timeout_error(const std::atomic<uint64_t>& flag, const Wait& wait) const {
  return {ErrorCode::kDeadlineExceeded,
          "instance " + std::to_string(wait.waiter) + " waited " +
              std::to_string(timeout_us_ / 1000) + " ms for the " + wait.purpose + " of instance " +
              std::to_string(wait.awaited) + " (epoch " + std::to_string(wait.epoch) +
              ", last seen " + std::to_string(flag.load()) +
              "); raise --wait-timeout if the machine is only slow"};
}

MailboxGrid::MailboxGrid(const Shape& shape, WaitRoom& room)
    : shape_(shape),
      room_(room),
      pairs_(static_cast<size_t>(shape.num_instances) * static_cast<size_t>(shape.num_instances)) {
  const auto values = static_cast<size_t>(shape.max_rows * shape.row_values);
  for (Pair& pair : pairs_) {
    for (auto& rows : pair.rows) rows.reset(new float[values]);
  }
}

MailboxGrid::Pair& MailboxGrid::pair(InstanceId destination, InstanceId source) {
  return pairs_[static_cast<size_t>(destination) * static_cast<size_t>(shape_.num_instances) +
                static_cast<size_t>(source)];
}

tensor::Matrix MailboxGrid::slots(InstanceId destination, InstanceId source, uint64_t epoch,
                                  int64_t num_rows) {
  NANOCP_CHECK_LE(num_rows, shape_.max_rows);
  float* rows = pair(destination, source).rows[epoch % 2].get();
  return {rows, num_rows, shape_.row_values, shape_.row_values};
}

void MailboxGrid::post(InstanceId destination, InstanceId source, uint64_t epoch,
                       int64_t num_rows) {
  Pair& target = pair(destination, source);
  target.num_rows[epoch % 2] = num_rows;
  target.epoch.store(epoch);
  room_.ring(destination);
}

Result<int64_t> MailboxGrid::wait(InstanceId destination, InstanceId source, uint64_t epoch) {
  Pair& from = pair(destination, source);
  NANOCP_RETURN_IF_ERROR(room_.wait_for(from.epoch, {destination, source, shape_.purpose, epoch}));
  return from.num_rows[epoch % 2];
}

}  // namespace nanocp::comm
