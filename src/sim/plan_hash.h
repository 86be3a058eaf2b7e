// A number that says whether two runs planned the same steps: of every row, its binding, its
// position and where the KV that it sees is held. Made of integers alone, so that it is the same on
// every machine and with every compiler. One thread.
#pragma once

#include <cstdint>

#include "base/random.h"
#include "scheduler/step_plan.h"

namespace nanocp::sim {

class PlanHash {
 public:
  void add(const scheduler::StepPlan& plan);
  uint64_t value() const { return value_; }

 private:
  // Products do not wait for one another; only the last mixing does.
  void add(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    value_ = mix_bits(value_ + a * 0x9e3779b97f4a7c15ULL + b * 0xc2b2ae3d27d4eb4fULL +
                      c * 0x165667b19e3779f9ULL + d * 0xd6e8feb86659fd93ULL);
  }
  void add_item(uint64_t holder, const AttentionItem& item);

  uint64_t value_ = 0;
};

}  // namespace nanocp::sim
