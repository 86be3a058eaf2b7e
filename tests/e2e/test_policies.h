// Policies that no user would choose: they reach every placement that the engine must get right.
#pragma once

#include <memory>

#include "scheduler/policy.h"

namespace nanocp::e2e {

// Every request over `degree` instances in shards of unequal size; each new block goes to the next
// holder, so that the tail moves all the time; rows run on a holder that is not the first.
std::unique_ptr<scheduler::Policy> make_uneven_policy(int degree);

// Random split points, holders (also repeated and empty ones) and tails, and a random binding,
// which may hold nothing, for every step.
std::unique_ptr<scheduler::Policy> make_random_policy(uint64_t seed);

}  // namespace nanocp::e2e
