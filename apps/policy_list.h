// Policies as one word each, for commands that compare several: bound/ROUTER, uniform_cp/DEGREE,
// threshold_cp/DEGREE, dcp, dcp/slo, dcp less one of its parts (no_splits, any_domain, no_moves,
// no_tails, no_reserve), and the simulator's oracle.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "scheduler/policy.h"

namespace nanocp::apps {

// `defaults` gives what the word leaves out. Fails, naming the word, where it is none.
Result<std::unique_ptr<scheduler::Policy>> make_named_policy(
    const std::string& word, const scheduler::PolicyOptions& defaults);

}  // namespace nanocp::apps
