// Loads that are hard on a scheduler: many at once, none short, exactly as large as fits, given up
// in masses. Drawn with integers only, so that they are the same on every machine. Pure functions;
// any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "base/result.h"
#include "sim/workload.h"

namespace nanocp::sim {

enum class AdversaryKind {
  kBursts,       // long silence, then many at one time
  kAllLong,      // nobody leaves room for a second one
  kLimits,       // prompt and output together a token below, at or above what instances hold
  kCancelStorm,  // nearly all are given up, many at the same time
  kNoOutput,     // no output token (which is refused) or a single one, beside longer ones
  kGrowth,       // short prompts whose outputs fill the pools
  kPriorities,   // more important requests keep coming
  kStream,       // large requests behind an endless stream of small ones that always fit
  kMixed,        // each request of one of the kinds above
};

struct AdversaryName {
  std::string_view name;  // as in `adversarial:bursts`
  AdversaryKind kind;
};
constexpr std::array<AdversaryName, 9> kAdversaries = {
    {{"bursts", AdversaryKind::kBursts},
     {"all_long", AdversaryKind::kAllLong},
     {"limits", AdversaryKind::kLimits},
     {"cancel_storm", AdversaryKind::kCancelStorm},
     {"no_output", AdversaryKind::kNoOutput},
     {"growth", AdversaryKind::kGrowth},
     {"priorities", AdversaryKind::kPriorities},
     {"stream", AdversaryKind::kStream},
     {"mixed", AdversaryKind::kMixed}}};

Result<AdversaryKind> parse_adversary(std::string_view name);

// What the load is to be hard on.
struct AdversaryTarget {
  std::span<const int64_t> kv_tokens;  // [num_instances] that their pools hold
  int64_t num_requests = 0;
  int64_t duration_us = 0;  // of the arrivals
};

// Arrivals by rising time. Requires: at least one instance, each with at least one token;
// num_requests >= 0, duration_us >= 1.
std::vector<Arrival> draw_adversarial_load(AdversaryKind kind, const AdversaryTarget& target,
                                           Random random);

}  // namespace nanocp::sim
