#include "sim/plan_hash.h"

namespace nanocp::sim {
namespace {

// Two numbers of 32 bits side by side.
uint64_t pair_of(int64_t high, int64_t low) {
  return (static_cast<uint64_t>(high) << 32) | (static_cast<uint64_t>(low) & 0xffffffffU);
}

}  // namespace

void PlanHash::add(const scheduler::StepPlan& plan) {
  // Rows are many, so each costs one product.
  uint64_t samples = 0;
  for (const scheduler::SamplingSequence& sample : plan.samples) {
    samples = (samples + sample.id) * 0x9e3779b97f4a7c15ULL;
  }
  mix(plan.step_id, static_cast<uint64_t>(plan.num_rows), plan.samples.size(), samples);
  for (const scheduler::InstanceWorkCount& work : plan.work) {
    const scheduler::RouteCount& routes = work.routes;
    mix(pair_of(work.num_rows, work.num_attended_rows), static_cast<uint64_t>(work.num_kv_tokens),
        static_cast<uint64_t>(work.num_pairs), 1);
    mix(pair_of(routes.near_queries, routes.far_queries),
        pair_of(routes.near_partials, routes.far_partials), 0, 2);
  }
}

void PlanHash::add(SequenceId sequence, const engine::SequenceSummary& summary) {
  mix(sequence, pair_of(summary.binding, summary.num_preemptions), summary.kv_tokens.size(), 3);
  for (const auto& [holder, num_tokens] : summary.kv_tokens) {
    mix(static_cast<uint64_t>(holder), static_cast<uint64_t>(num_tokens), 0, 4);
  }
}

}  // namespace nanocp::sim
