#include "scheduler/policies/dcp_admission.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <tuple>

#include "scheduler/policies/level_fill.h"

namespace nanocp::scheduler {
namespace {

// Of the difference between two levels, the part by which shares differ.
constexpr double kLevelled = 0.25;

int64_t num_free_on(const ClusterView& view, std::span<const InstanceId> instances) {
  return std::accumulate(
      instances.begin(), instances.end(), int64_t{0},
      [&](int64_t sum, InstanceId i) { return sum + view.at(i).num_free_blocks; });
}

}  // namespace

void DcpAdmission::rebuild(const ClusterView& view) {
  view_ = view;
  score_.rebuild(view);
  order_.rebuild(view, [this](InstanceId i) { return score_.level(i); });
}

void DcpAdmission::update(const ClusterView& view, InstanceId instance) {
  view_ = view;
  score_.update(view, instance);
  order_.update(view, instance, score_.level(instance));
}

int64_t DcpAdmission::blocks_per_shard() const {
  return std::max<int64_t>(1, min_tokens_per_shard_ / view_.block_size);
}

std::optional<AdmissionDecision> DcpAdmission::plan(const ClusterView& view,
                                                    const RequestShape& shape) {
  view_ = view;
  limit_ = holder_limit(view, shape.max_blocks, max_degree_);
  const bool is_new = shape.placement->num_blocks() == 0;
  AdmissionDecision decision = (is_new ? best_new(shape) : continued(shape)).decision;
  if (decision.binding == kNoInstance) return std::nullopt;
  const bool waits = is_new && parts_.keeps_budget && score_.is_over_budget(work_of(decision));
  if (waits) return std::nullopt;
  // New K/V stays at home when the binding's own span comes last.
  std::stable_partition(decision.spans.begin(), decision.spans.end(),
                        [&](const BlockSpan& span) { return span.holder != decision.binding; });
  return decision;
}

// Of the domain that holds most on as many holders as a request may have.
int64_t DcpAdmission::domain_capacity() const {
  std::vector<std::vector<int64_t>> pools(static_cast<size_t>(view_.num_domains()));
  for (InstanceId i = 0; i < view_.num_instances(); ++i) {
    if (!limit_.is_large_enough(view_.at(i))) continue;
    pools[static_cast<size_t>(view_.domain_of(i))].push_back(view_.at(i).num_blocks);
  }
  int64_t most = 0;
  for (std::vector<int64_t>& sizes : pools) {
    const auto count = std::min(sizes.size(), static_cast<size_t>(limit_.max_degree));
    const auto end = sizes.begin() + static_cast<std::ptrdiff_t>(count);
    std::partial_sort(sizes.begin(), end, sizes.end(), std::greater<>());
    most = std::max(most, std::accumulate(sizes.begin(), end, int64_t{0}));
  }
  return most;
}

// As many as may hold a request, those with most free blocks.
std::vector<InstanceId> DcpAdmission::roomiest(std::span<const InstanceId> instances) const {
  std::vector<InstanceId> chosen(instances.begin(), instances.end());
  if (std::ssize(chosen) <= limit_.max_degree) return chosen;
  std::stable_sort(chosen.begin(), chosen.end(), [this](InstanceId a, InstanceId b) {
    return view_.at(a).num_free_blocks > view_.at(b).num_free_blocks;
  });
  chosen.resize(static_cast<size_t>(limit_.max_degree));
  return chosen;
}

DcpAdmission::Candidate DcpAdmission::best_new(const RequestShape& shape) {
  const int64_t count = shape.num_new_blocks;
  Candidate best = best_local(count);
  const bool is_long = parts_.splits && count >= 2 * blocks_per_shard();
  if (!best.exists() || is_long) {
    ClusterView groups = view_;
    if (!parts_.stays_in_domain) groups.num_instances_per_domain = 0;
    sort_by_domain(groups);
    if (best.exists()) set_best(std::move(best), best);
    for (const auto& domain : domains_) consider_domain(domain, count, best);
  }
  if (!best.exists() && shape.max_blocks > domain_capacity()) best = over_domains(count);
  if (!best.exists()) best.decision.binding = kNoInstance;
  return best;
}

// What a request adds is the same wherever it goes, so an instance that is no lower than another
// one, and has no fewer rows, is not rated.
DcpAdmission::Candidate DcpAdmission::best_local(int64_t num_blocks) const {
  InstanceId best = kNoInstance;
  double best_score = 0.0;
  int32_t fewest = std::numeric_limits<int32_t>::max();
  for (const InstanceOrder::Place& place : order_.places()) {
    if (place.num_sequences >= fewest) continue;
    const InstanceId i = place.instance;
    const InstanceLoad& load = view_.at(i);
    if (load.num_free_blocks < num_blocks || !load.can_bind()) continue;
    if (!limit_.is_large_enough(load)) continue;
    fewest = load.num_sequences;
    const AddedWork work{i, num_blocks * view_.block_size, 1, {}};
    const double rated = score_.with({&work, 1});
    if (best != kNoInstance && rated >= best_score) continue;
    best = i;
    best_score = rated;
  }
  if (best == kNoInstance) return {};
  return {.decision = {.binding = best, .spans = {{best, num_blocks}}}, .score = best_score};
}

// Instances with a free block, lowest level first; and the fewest rows of any.
void DcpAdmission::sort_by_domain(const ClusterView& view) {
  domains_.resize(static_cast<size_t>(view.num_domains()));
  for (std::vector<InstanceId>& domain : domains_) domain.clear();
  fewest_rows_ = std::numeric_limits<int32_t>::max();
  for (const InstanceOrder::Place& place : order_.places()) {
    const InstanceLoad& load = view.at(place.instance);
    fewest_rows_ = std::min(fewest_rows_, place.num_sequences);
    if (load.num_free_blocks == 0 || !limit_.is_large_enough(load)) continue;
    domains_[static_cast<size_t>(view.domain_of(place.instance))].push_back(place.instance);
  }
}

// Shares are even but for a part of the difference between levels. To fill up the lower ones
// altogether would be best now, and uneven as soon as one of those requests that lie there ends.
std::vector<BlockSpan> DcpAdmission::fill(std::span<const InstanceId> holders,
                                          int64_t num_blocks) const {
  std::vector<FillTarget> targets;
  targets.reserve(holders.size());
  for (const InstanceId i : holders) {
    const double level = kLevelled * score_.level(i) / view_.block_size;
    targets.push_back({std::llround(level), view_.at(i).num_free_blocks});
  }
  const auto amounts = level_fill(targets, num_blocks);
  std::vector<BlockSpan> spans;
  for (size_t i = 0; amounts && i < holders.size(); ++i) {
    if ((*amounts)[i] > 0) spans.push_back({holders[i], (*amounts)[i]});
  }
  return spans;
}

// Over the 2, 3, ... lowest ones. Shards too small to be worth having only where nothing else fits.
void DcpAdmission::consider_domain(std::span<const InstanceId> domain, int64_t num_blocks,
                                   Candidate& best) const {
  if (num_free_on(view_, domain) < num_blocks) return;
  const int64_t widest = num_blocks / blocks_per_shard();
  const auto degree_max = std::min(domain.size(), static_cast<size_t>(limit_.max_degree));
  for (size_t degree = 2; degree <= degree_max; ++degree) {
    if (static_cast<int64_t>(degree) > widest && best.exists()) break;
    const auto holders = domain.first(degree);
    if (best.exists() && least_growth(holders, num_blocks) > best.most_growth) continue;
    consider_holders(holders, num_blocks, best);
  }
  // The lowest ones need not be those with most room.
  if (!best.exists() && degree_max < domain.size()) {
    consider_holders(roomiest(domain), num_blocks, best);
  }
}

void DcpAdmission::consider_holders(std::span<const InstanceId> holders, int64_t num_blocks,
                                    Candidate& best) const {
  Candidate candidate;
  candidate.decision.spans = fill(holders, num_blocks);
  if (!candidate.exists()) return;
  candidate.decision.binding = choose_binding(nullptr, candidate.decision.spans);
  if (candidate.decision.binding == kNoInstance) return;
  candidate.score = score_.with(work_of(candidate.decision));
  if (!best.exists() || candidate.score < best.score) set_best(std::move(candidate), best);
}

// What is worse by more than rounding is not looked at any more, wherever its row goes.
void DcpAdmission::set_best(Candidate candidate, Candidate& best) const {
  constexpr double kRounding = 1e-9;
  best = std::move(candidate);
  best.most_growth = score_.most_growth((1.0 + kRounding) * best.score, fewest_rows_);
}

// However the blocks are shared, and whichever of the holders runs the row.
double DcpAdmission::least_growth(std::span<const InstanceId> holders, int64_t num_blocks) const {
  double level = static_cast<double>(num_blocks * view_.block_size) + costs_.row;
  for (const InstanceId i : holders) level += score_.level(i);
  if (parts_.stays_in_domain) {
    const auto num_others = static_cast<double>(holders.size() - 1);
    level += num_others * (costs_.near_query + costs_.near_partial);
    for (const InstanceId i : holders) {
      const RouteCount& routes = view_.at(i).routes;
      if (routes.near_queries + routes.near_partials == 0) level += costs_.near_split;
    }
  }
  return score_.least_growth(holders, level);
}

// Over as few domains as hold it, those with most room.
DcpAdmission::Candidate DcpAdmission::over_domains(int64_t num_blocks) {
  sort_by_domain(view_);
  std::stable_sort(domains_.begin(), domains_.end(), [this](const auto& a, const auto& b) {
    return num_free_on(view_, a) > num_free_on(view_, b);
  });
  std::vector<InstanceId> reached;
  std::vector<InstanceId> holders;
  for (const std::vector<InstanceId>& domain : domains_) {
    reached.insert(reached.end(), domain.begin(), domain.end());
    holders = roomiest(reached);
    if (num_free_on(view_, holders) >= num_blocks) break;
  }
  Candidate candidate;
  candidate.decision.spans = fill(holders, num_blocks);
  candidate.decision.binding = choose_binding(nullptr, candidate.decision.spans);
  return candidate;
}

// A request that comes back with a prefix: the missing end goes to its tail when it is short, else
// to its holders, and to others, near ones first, only for lack of room.
DcpAdmission::Candidate DcpAdmission::continued(const RequestShape& shape) {
  Candidate candidate;
  const int64_t count = shape.num_new_blocks;
  const InstanceId tail = shape.placement->tail_holder();
  if (count < blocks_per_shard() && view_.at(tail).num_free_blocks >= count) {
    if (count > 0) candidate.decision.spans = {{tail, count}};
  } else {
    std::vector<InstanceId> chosen;
    int64_t num_more = limit_.max_degree - std::ssize(shape.placement->shards());
    for (const kvcache::Shard& shard : shape.placement->shards()) {
      if (view_.at(shard.holder).num_free_blocks > 0) chosen.push_back(shard.holder);
    }
    sort_by_domain(view_);
    std::swap(domains_.front(), domains_[static_cast<size_t>(view_.domain_of(tail))]);
    for (const std::vector<InstanceId>& domain : domains_) {
      for (const InstanceId i : domain) {
        if (num_free_on(view_, chosen) >= count || num_more <= 0) break;
        if (std::find(chosen.begin(), chosen.end(), i) != chosen.end()) continue;
        chosen.push_back(i);
        --num_more;
      }
    }
    candidate.decision.spans = fill(chosen, count);
    if (candidate.decision.spans.empty()) return candidate;
  }
  candidate.decision.binding = choose_binding(shape.placement, candidate.decision.spans);
  return candidate;
}

std::vector<AddedWork> DcpAdmission::work_of(const AdmissionDecision& decision) const {
  const InstanceId binding = decision.binding;
  std::vector<AddedWork> added;
  RouteCount home;
  for (const BlockSpan& span : decision.spans) {
    AddedWork work{span.holder, span.num_blocks * view_.block_size, 0, {}};
    if (span.holder == binding) {
      work.num_rows = 1;
    } else if (view_.domain_of(span.holder) == view_.domain_of(binding)) {
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

// A holder that can take the row: one that is no holder would cost every layer a round trip. The
// one with fewest rows, then the lowest.
InstanceId DcpAdmission::choose_binding(const kvcache::KvPlacement* placement,
                                        std::span<const BlockSpan> spans) const {
  InstanceId best = kNoInstance;
  const auto rank = [&](InstanceId i) {
    return std::make_tuple(view_.at(i).num_sequences, score_.level(i), i);
  };
  const auto consider = [&](InstanceId i) {
    if (view_.at(i).can_bind() && (best == kNoInstance || rank(i) < rank(best))) best = i;
  };
  for (const BlockSpan& span : spans) consider(span.holder);
  for (size_t k = 0; placement != nullptr && k < placement->shards().size(); ++k) {
    consider(placement->shards()[k].holder);
  }
  for (InstanceId i = 0; best == kNoInstance && i < view_.num_instances(); ++i) consider(i);
  return best;
}

}  // namespace nanocp::scheduler
