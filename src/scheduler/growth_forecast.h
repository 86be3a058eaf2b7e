// What running sequences will need beyond the blocks that they have, and free by ending, on each
// instance: sums over those whose outputs are about as long, and a history of how long outputs get.
// Says whether everything is expected to fit, newcomers included, at a few moments ahead. Owned by
// SchedulerState, changed by Scheduler alone; one thread. See CONTRACT.md, scheduler.reserve.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "scheduler/entry.h"
#include "scheduler/output_history.h"

namespace nanocp::scheduler {

class GrowthForecast {
 public:
  // A sequence grows on all its holders alike; parts of it are counted so that sums are exact.
  static constexpr int32_t kParts = 1 << 12;
  static int32_t parts_of(int64_t degree) { return kParts / static_cast<int32_t>(degree); }

  // Sequences on one instance.
  struct Group {
    int32_t num_sequences = 0;
    int32_t num_blocks = 0;  // that they hold there
    int32_t num_parts = 0;   // of a row that grows there
    bool operator==(const Group&) const = default;
  };
  // Those that were let in within the step and that the sums do not have yet. They have no outputs,
  // or are taken to have none.
  struct Newcomers {
    Group group;
    int64_t most_growth = 0;  // blocks that they may still come to need, in parts
  };

  GrowthForecast(int32_t num_instances, int32_t block_size);

  // The sequence runs from now on, or runs no more. In between its blocks do not change. Requires:
  // at least one block.
  void enter(Entry& entry);
  void leave(const Entry& entry);
  // The sequence has ended, whatever the reason. Requires: it does not run any more.
  void end(Entry& entry);

  // Whether all that run on the instance and the newcomers are expected to fit until enough of them
  // have ended. `num_free`: blocks that are left when the newcomers have theirs.
  bool fits(InstanceId instance, int64_t num_free, const Newcomers& newcomers) const;
  // How many of `num_free` blocks one more newcomer may take so that all are expected to fit, when
  // it grows by at most `max_growth`; may be negative.
  int64_t room(InstanceId instance, int64_t num_free, const Newcomers& newcomers,
               int64_t max_growth) const;

  // Aborts when the sums differ from those of the entries, which are all that run.
  void check_integrity(const std::vector<const Entry*>& running) const;

 private:
  // Moments ahead, in blocks that a row grows until then.
  static constexpr std::array<double, 16> kHorizons = {1,  2,  3,  4,  6,  8,   12,  16,
                                                       24, 32, 48, 64, 96, 128, 192, 256};
  using ByHorizon = std::array<double, kHorizons.size()>;
  struct Sums {
    std::array<Group, kNumOutputClasses> by_class;
    int64_t most_growth = 0;  // as of newcomers
    bool operator==(const Sums&) const = default;
  };
  // How many blocks more than now are in use at each horizon.
  struct Outlook {
    ByHorizon mean{};
    ByHorizon variance{};
    double num_growing = 0.0;
    void add(const Group& group, const ByHorizon& shares);
    double at(size_t horizon, int64_t most_growth) const;
  };

  void count_outputs(Entry& entry);
  static void add(const Entry& entry, int32_t sign, std::vector<Sums>& sums);
  void forget_outlook(const Entry& entry);
  void refresh_shares() const;
  Outlook outlook(InstanceId instance, const Newcomers& newcomers) const;
  int64_t most_growth(InstanceId instance, const Newcomers& newcomers) const {
    return sums_[static_cast<size_t>(instance)].most_growth + newcomers.most_growth;
  }

  const int32_t block_size_;
  OutputHistory history_;
  std::vector<Sums> sums_;  // [num_instances]
  // Of sequences of a class, the share that has not ended at each horizon; as of when so many
  // outputs had ended.
  mutable std::array<ByHorizon, kNumOutputClasses> shares_{};
  mutable int64_t num_ended_in_shares_ = -1;
  // What sums_ come to, where that has been asked for since they changed.
  mutable std::vector<Outlook> outlooks_;  // [num_instances]
  mutable std::vector<char> is_known_;     // [num_instances]
};

}  // namespace nanocp::scheduler
