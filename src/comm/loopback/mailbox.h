// Receive slots and epoch flags between the threads of one process. A MailboxGrid holds, for one
// purpose, a region per (destination, source) pair with two buffers of rows; the sender writes the
// buffer of the epoch's parity and then raises the flag to the epoch. Flags only grow.
//
// A grid is shared by all instances; `source` and `destination` say who calls. The writes before
// post() are visible after wait() returned.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/ids.h"
#include "tensor/matrix.h"

namespace nanocp::comm {

// Wakes the threads of a group and ends all their waits at once when one of them fails.
class WaitRoom {
 public:
  WaitRoom(int num_instances, int64_t timeout_us);

  // Who waits for which flag, for the report when the wait runs out.
  struct Wait {
    InstanceId waiter;
    InstanceId awaited;
    const char* purpose;
    uint64_t epoch;
  };
  // Returns when *flag >= wait.epoch, on a failure of the group, or at the deadline.
  Status wait_for(const std::atomic<uint64_t>& flag, const Wait& wait);
  // Wakes `instance` if it sleeps. Call after raising a flag it may wait for.
  void ring(InstanceId instance);

  // Fails the group: all present and later waits return kAborted with this message. The first
  // message stays.
  void abort(const std::string& message);
  bool aborted() const { return aborted_.load(); }

 private:
  struct Bell {
    std::mutex mutex;
    std::condition_variable rung;
    std::atomic<int> num_sleeping{0};
  };
  Error abort_error();
  Error timeout_error(const std::atomic<uint64_t>& flag, const Wait& wait) const;

  const int64_t timeout_us_;
  std::vector<std::unique_ptr<Bell>> bells_;
  std::atomic<bool> aborted_{false};
  std::mutex abort_mutex_;
  std::string abort_message_;  // guarded by abort_mutex_
};

class MailboxGrid {
 public:
  struct Shape {
    const char* purpose;  // for reports: "query", "dispatch", ...
    int32_t num_instances;
    int64_t max_rows;    // per pair and epoch
    int64_t row_values;  // floats
  };
  MailboxGrid(const Shape& shape, WaitRoom& room);

  // The pair's buffer of this epoch, as [num_rows, row_values].
  tensor::Matrix slots(InstanceId destination, InstanceId source, uint64_t epoch, int64_t num_rows);
  // Announces `num_rows` rows. One thread per pair.
  void post(InstanceId destination, InstanceId source, uint64_t epoch, int64_t num_rows);
  // Waits for the announcement of this epoch; returns the number of rows.
  Result<int64_t> wait(InstanceId destination, InstanceId source, uint64_t epoch);

  int64_t max_rows() const { return shape_.max_rows; }

 private:
  struct Pair {
    std::atomic<uint64_t> epoch{0};
    int64_t num_rows[2] = {0, 0};      // by parity; written before the flag
    std::unique_ptr<float[]> rows[2];  // touched only when used
  };
  Pair& pair(InstanceId destination, InstanceId source);

  const Shape shape_;
  WaitRoom& room_;
  std::vector<Pair> pairs_;
};

}  // namespace nanocp::comm
