// What an instance spends a step on. Devices time it, reports name it.
#pragma once

#include <cstdint>

namespace nanocp {

enum class StepPhase : int32_t {
  kDense,      // projections, norms, dense and shared MLPs, router product
  kRoute,      // rotation, append, queries out
  kAttention,  // with the wait for received queries
  kMerge,      // partial results back and together
  kDispatch,   // expert choice and rows out
  kIdleWait,   // until the rows of all instances are here, and the list of who works on them
  kExperts,    // expert MLPs
  kCombine,    // sums back and together, with the wait for them, residual and norm
  kHead,       // LM head and sampling
};
constexpr int kNumStepPhases = 9;

inline const char* to_string(StepPhase phase) {
  constexpr const char* kNames[kNumStepPhases] = {"dense",   "route",    "attention",
                                                  "merge",   "dispatch", "idle_wait",
                                                  "experts", "combine",  "head"};
  return kNames[static_cast<int>(phase)];
}

}  // namespace nanocp
