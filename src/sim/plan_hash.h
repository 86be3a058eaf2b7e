// A number that says whether two runs did the same: of every step who has rows and tokens on which
// instance, and what KV each instance attends, sends and receives; and of every request that ends
// who held it. Made of integers alone, so that it is the same on every machine and with every
// compiler. One thread.
#pragma once

#include <cstdint>

#include "base/random.h"
#include "engine/engine.h"
#include "scheduler/step_plan.h"

namespace nanocp::sim {

class PlanHash {
 public:
  // The plan's tables are not looked at: with and without them the hash is the same.
  void add(const scheduler::StepPlan& plan);
  // The last token of a sequence.
  void add(SequenceId sequence, const engine::SequenceSummary& summary);
  uint64_t value() const { return value_; }

 private:
  // Products do not wait for one another; only the last mixing does.
  void mix(uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    value_ = mix_bits(value_ + a * 0x9e3779b97f4a7c15ULL + b * 0xc2b2ae3d27d4eb4fULL +
                      c * 0x165667b19e3779f9ULL + d * 0xd6e8feb86659fd93ULL);
  }

  uint64_t value_ = 0;
};

}  // namespace nanocp::sim
