#include "scheduler/policies/dcp_policy.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <tuple>

#include "scheduler/policies/level_fill.h"

namespace nanocp::scheduler {
namespace {

// Of the difference between two levels, the part by which shares differ.
constexpr double kLevelled = 0.25;

// Instances with a free block, grouped by domain, lowest level first.
std::vector<std::vector<InstanceId>> domains_by_level(const ClusterView& view,
                                                      const PlacementScore& score) {
  std::vector<std::vector<InstanceId>> domains(static_cast<size_t>(view.num_domains()));
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks > 0)
      domains[static_cast<size_t>(view.domain_of(i))].push_back(i);
  }
  for (std::vector<InstanceId>& domain : domains) {
    std::stable_sort(domain.begin(), domain.end(), [&score](InstanceId a, InstanceId b) {
      return score.level(a) < score.level(b);
    });
  }
  return domains;
}

// Those that a request is split in.
std::vector<std::vector<InstanceId>> candidate_domains(ClusterView view,
                                                       const PlacementScore& score,
                                                       const DcpParts& parts) {
  if (!parts.stays_in_domain) view.num_instances_per_domain = 0;
  return domains_by_level(view, score);
}

int64_t num_free_on(const ClusterView& view, std::span<const InstanceId> instances) {
  return std::accumulate(
      instances.begin(), instances.end(), int64_t{0},
      [&](int64_t sum, InstanceId i) { return sum + view.at(i).num_free_blocks; });
}

int64_t domain_capacity(const ClusterView& view) {
  std::vector<int64_t> capacities(static_cast<size_t>(view.num_domains()), 0);
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    capacities[static_cast<size_t>(view.domain_of(i))] += view.at(i).num_blocks;
  }
  return *std::max_element(capacities.begin(), capacities.end());
}

}  // namespace

int64_t DcpPolicy::blocks_per_shard(const ClusterView& view) const {
  return std::max<int64_t>(1, min_tokens_per_shard_ / view.block_size);
}

int64_t DcpPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                      const RequestShape& /*shape*/) const {
  return std::accumulate(capacities.begin(), capacities.end(), int64_t{0});
}

std::optional<AdmissionDecision> DcpPolicy::plan_admission(const ClusterView& view,
                                                           const RequestShape& shape) const {
  const PlacementScore score(view, costs_);
  Candidate best;
  if (shape.placement->num_blocks() > 0) {
    best = continued(view, score, shape);
  } else {
    const int64_t count = shape.num_new_blocks;
    best = best_local(view, score, count);
    const bool is_long = parts_.splits && count >= 2 * blocks_per_shard(view);
    if (best.decision.spans.empty() || is_long) {
      for (const auto& domain : candidate_domains(view, score, parts_)) {
        consider_domain(view, score, domain, count, best);
      }
    }
    if (best.decision.spans.empty() && shape.max_blocks > domain_capacity(view)) {
      best = over_domains(view, score, count);
    }
    if (best.decision.spans.empty()) return std::nullopt;
    if (parts_.keeps_budget && score.is_over_budget(work_of(view, best.decision))) {
      return std::nullopt;
    }
  }
  AdmissionDecision& decision = best.decision;
  if (decision.binding == kNoInstance) return std::nullopt;
  // New K/V stays at home when the binding's own span comes last.
  std::stable_partition(decision.spans.begin(), decision.spans.end(),
                        [&](const BlockSpan& span) { return span.holder != decision.binding; });
  return std::move(decision);
}

DcpPolicy::Candidate DcpPolicy::best_local(const ClusterView& view, const PlacementScore& score,
                                           int64_t num_blocks) const {
  Candidate best;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks < num_blocks || !view.at(i).can_bind()) continue;
    const AddedWork work{i, num_blocks * view.block_size, 1, {}};
    const double rated = score.with({&work, 1});
    if (!best.decision.spans.empty() && rated >= best.score) continue;
    best.decision = {.binding = i, .spans = {{i, num_blocks}}};
    best.score = rated;
  }
  return best;
}

// Shares are even but for a part of the difference between levels. To fill up the lower ones
// altogether would be best now, and uneven as soon as one of those requests that lie there ends.
std::vector<BlockSpan> DcpPolicy::fill(const ClusterView& view, const PlacementScore& score,
                                       std::span<const InstanceId> holders,
                                       int64_t num_blocks) const {
  std::vector<FillTarget> targets;
  targets.reserve(holders.size());
  for (const InstanceId i : holders) {
    const double level = kLevelled * score.level(i) / view.block_size;
    targets.push_back({std::llround(level), view.at(i).num_free_blocks});
  }
  const auto amounts = level_fill(targets, num_blocks);
  std::vector<BlockSpan> spans;
  for (size_t i = 0; amounts && i < holders.size(); ++i) {
    if ((*amounts)[i] > 0) spans.push_back({holders[i], (*amounts)[i]});
  }
  return spans;
}

// Over the 2, 3, ... lowest ones. Shards too small to be worth having only where nothing else fits.
void DcpPolicy::consider_domain(const ClusterView& view, const PlacementScore& score,
                                std::span<const InstanceId> domain, int64_t num_blocks,
                                Candidate& best) const {
  if (num_free_on(view, domain) < num_blocks) return;
  const int64_t widest = num_blocks / blocks_per_shard(view);
  for (size_t degree = 2; degree <= domain.size(); ++degree) {
    if (static_cast<int64_t>(degree) > widest && !best.decision.spans.empty()) break;
    Candidate candidate;
    candidate.decision.spans = fill(view, score, domain.first(degree), num_blocks);
    if (candidate.decision.spans.empty()) continue;
    candidate.decision.binding = choose_binding(view, score, nullptr, candidate.decision.spans);
    if (candidate.decision.binding == kNoInstance) continue;
    rate(view, score, candidate);
    if (best.decision.spans.empty() || candidate.score < best.score) best = std::move(candidate);
  }
}

// Over as few domains as hold it, those with most room.
DcpPolicy::Candidate DcpPolicy::over_domains(const ClusterView& view, const PlacementScore& score,
                                             int64_t num_blocks) const {
  std::vector<std::vector<InstanceId>> domains = domains_by_level(view, score);
  std::stable_sort(domains.begin(), domains.end(), [&view](const auto& a, const auto& b) {
    return num_free_on(view, a) > num_free_on(view, b);
  });
  std::vector<InstanceId> holders;
  for (const std::vector<InstanceId>& domain : domains) {
    holders.insert(holders.end(), domain.begin(), domain.end());
    if (num_free_on(view, holders) >= num_blocks) break;
  }
  Candidate candidate;
  candidate.decision.spans = fill(view, score, holders, num_blocks);
  candidate.decision.binding = choose_binding(view, score, nullptr, candidate.decision.spans);
  return candidate;
}

// A request that comes back with a prefix: the missing end goes to its tail when it is short, else
// to its holders, and to others, near ones first, only for lack of room.
DcpPolicy::Candidate DcpPolicy::continued(const ClusterView& view, const PlacementScore& score,
                                          const RequestShape& shape) const {
  Candidate candidate;
  const int64_t count = shape.num_new_blocks;
  const InstanceId tail = shape.placement->tail_holder();
  if (count < blocks_per_shard(view) && view.at(tail).num_free_blocks >= count) {
    if (count > 0) candidate.decision.spans = {{tail, count}};
  } else {
    std::vector<InstanceId> chosen;
    for (const kvcache::Shard& shard : shape.placement->shards()) {
      if (view.at(shard.holder).num_free_blocks > 0) chosen.push_back(shard.holder);
    }
    std::vector<std::vector<InstanceId>> domains = domains_by_level(view, score);
    std::swap(domains.front(), domains[static_cast<size_t>(view.domain_of(tail))]);
    for (const std::vector<InstanceId>& domain : domains) {
      for (const InstanceId i : domain) {
        if (num_free_on(view, chosen) >= count) break;
        if (std::find(chosen.begin(), chosen.end(), i) == chosen.end()) chosen.push_back(i);
      }
    }
    candidate.decision.spans = fill(view, score, chosen, count);
    if (candidate.decision.spans.empty()) return candidate;
  }
  candidate.decision.binding =
      choose_binding(view, score, shape.placement, candidate.decision.spans);
  return candidate;
}

std::vector<AddedWork> DcpPolicy::work_of(const ClusterView& view,
                                          const AdmissionDecision& decision) const {
  const InstanceId binding = decision.binding;
  std::vector<AddedWork> added;
  RouteCount home;
  for (const BlockSpan& span : decision.spans) {
    AddedWork work{span.holder, span.num_blocks * view.block_size, 0, {}};
    if (span.holder == binding) {
      work.num_rows = 1;
    } else if (view.domain_of(span.holder) == view.domain_of(binding)) {
      ++home.near_queries;
      work.routes.near_partials = 1;
    } else {
      ++home.far_queries;
      work.routes.far_partials = 1;
    }
    added.push_back(work);
  }
  const auto at_home = std::find_if(added.begin(), added.end(), [binding](const AddedWork& work) {
    return work.instance == binding;
  });
  if (at_home != added.end()) {
    at_home->routes = home;
  } else {
    added.push_back({binding, 0, 1, home});
  }
  return added;
}

void DcpPolicy::rate(const ClusterView& view, const PlacementScore& score,
                     Candidate& candidate) const {
  candidate.score = score.with(work_of(view, candidate.decision));
}

// A holder that can take the row: one that is no holder would cost every layer a round trip. The
// one with fewest rows, then the lowest.
InstanceId DcpPolicy::choose_binding(const ClusterView& view, const PlacementScore& score,
                                     const kvcache::KvPlacement* placement,
                                     std::span<const BlockSpan> spans) const {
  InstanceId best = kNoInstance;
  const auto rank = [&](InstanceId i) {
    const auto takes = [i](const BlockSpan& span) { return span.holder == i; };
    const bool holds = (placement != nullptr && placement->find_shard(i) != nullptr) ||
                       std::any_of(spans.begin(), spans.end(), takes);
    return std::make_tuple(!holds, view.at(i).num_sequences, score.level(i));
  };
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).can_bind() && (best == kNoInstance || rank(i) < rank(best))) best = i;
  }
  return best;
}

// The tail stays where it is unless that instance is full or, for a request worth splitting,
// stands out by more than a shard; then the least used holder takes over that does not. A new
// holder costs routes for the rest of the request's life: only where no holder has a free block.
std::optional<InstanceId> DcpPolicy::plan_growth(const ClusterView& view,
                                                 const RequestShape& shape) const {
  const InstanceId tail = shape.placement->tail_holder();
  const bool is_short = shape.num_tokens < 2 * min_tokens_per_shard_;
  const bool stays = is_short || !parts_.moves_tails;
  if (stays && view.at(tail).num_free_blocks > 0) return tail;
  int64_t used = 0;
  for (const InstanceLoad& load : view.instances) used += load.num_used_blocks();
  const int64_t limit = used / view.num_instances() + blocks_per_shard(view);

  // Lower is better: the tail while it does not stand out, holders that do not, the tail, others.
  const auto rank = [&](InstanceId i) {
    const bool is_holder = shape.placement->find_shard(i) != nullptr;
    const bool stands_out = view.at(i).num_used_blocks() > limit;
    const int place = i == tail ? (stands_out ? 2 : 0) : is_holder ? (stands_out ? 3 : 1) : 4;
    const bool is_far = view.domain_of(i) != view.domain_of(tail);
    return std::make_tuple(place, is_far, view.at(i).num_used_blocks());
  };
  std::optional<InstanceId> best;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks > 0 && (!best || rank(i) < rank(*best))) best = i;
  }
  return best;
}

bool DcpPolicy::permits_growth(const ClusterView& /*view*/, const RequestShape& /*shape*/,
                               InstanceId /*instance*/) const {
  return true;
}

// A local request stays. A split one moves to a holder when that lowers what the two of them cost
// a step, or when its own instance has no row left for it.
InstanceId DcpPolicy::plan_binding(const ClusterView& view, const BindingQuery& query) const {
  const auto shards = query.placement->shards();
  if (shards.size() <= 1 && query.placement->tail_holder() == query.current) return query.current;
  const bool must_move = view.at(query.current).num_rows_left() == 0;
  if (!parts_.moves_bindings && !must_move) return query.current;
  // What the row costs its binding beside K/V, and a holder that is not the binding.
  double query_cost = 0.0;
  for (const kvcache::Shard& shard : shards) {
    if (shard.holder == query.current) continue;
    const bool is_near = view.domain_of(shard.holder) == view.domain_of(query.current);
    query_cost += is_near ? costs_.near_query : costs_.far_query;
  }
  const double moved = costs_.row + query_cost - costs_.near_partial;
  InstanceId best = query.current;
  double best_gain = 0.0;
  const InstanceLoad& home = view.at(query.current);
  const double home_level = level_of(home, view.block_size, costs_);
  for (const kvcache::Shard& shard : shards) {
    const InstanceLoad& load = view.at(shard.holder);
    if (shard.holder == query.current || !load.can_bind()) continue;
    const double level = level_of(load, view.block_size, costs_);
    const double before = std::max(home_level, level) +
                          costs_.row_of_fullest * std::max(home.num_sequences, load.num_sequences);
    const double after =
        std::max(home_level - moved, level + moved) +
        costs_.row_of_fullest * std::max(home.num_sequences - 1, load.num_sequences + 1);
    const double gain = before - after;
    if (gain > best_gain || (must_move && best == query.current)) {
      best_gain = gain;
      best = shard.holder;
    }
  }
  return best;
}

}  // namespace nanocp::scheduler
