#include "sim/oracle_policy.h"

#include <numeric>

#include "scheduler/policies/level_fill.h"

namespace nanocp::sim {

using scheduler::AdmissionDecision;
using scheduler::ClusterView;
using scheduler::InstanceLoad;
using scheduler::RequestShape;

int64_t OraclePolicy::max_request_blocks(std::span<const int64_t> capacities,
                                         const RequestShape& /*shape*/) const {
  return std::accumulate(capacities.begin(), capacities.end(), int64_t{0});
}

std::optional<AdmissionDecision> OraclePolicy::plan_admission(const ClusterView& view,
                                                              const RequestShape& shape) const {
  AdmissionDecision decision;
  std::vector<scheduler::FillTarget> targets;
  targets.reserve(view.instances.size());
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    const InstanceLoad& load = view.at(i);
    targets.push_back({load.num_used_blocks(), load.num_free_blocks});
    if (!load.can_bind()) continue;
    const bool is_better = decision.binding == kNoInstance ||
                           load.num_sequences < view.at(decision.binding).num_sequences;
    if (is_better) decision.binding = i;
  }
  const auto amounts = scheduler::level_fill(targets, shape.num_new_blocks);
  if (!amounts || decision.binding == kNoInstance) return std::nullopt;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    const int64_t num_blocks = (*amounts)[static_cast<size_t>(i)];
    if (num_blocks > 0) decision.spans.push_back({i, num_blocks});
  }
  return decision;
}

std::optional<InstanceId> OraclePolicy::plan_growth(const ClusterView& view,
                                                    const RequestShape& /*shape*/) const {
  InstanceId best = 0;
  for (InstanceId i = 1; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks > view.at(best).num_free_blocks) best = i;
  }
  return best;
}

bool OraclePolicy::permits_growth(const ClusterView& /*view*/, const RequestShape& /*shape*/,
                                  InstanceId /*instance*/) const {
  return true;
}

InstanceId OraclePolicy::plan_binding(const ClusterView& /*view*/,
                                      const scheduler::BindingQuery& query) const {
  return query.current;
}

}  // namespace nanocp::sim
