#include "scheduler/policies/dcp_policy.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "scheduler/policies/level_fill.h"

namespace nanocp::scheduler {
namespace {

int64_t most_used(const ClusterView& view) {
  int64_t most = 0;
  for (const InstanceLoad& load : view.instances) most = std::max(most, load.num_used_blocks());
  return most;
}

// Instances with a free block, least used first.
std::vector<InstanceId> by_use(const ClusterView& view) {
  std::vector<InstanceId> order;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks > 0) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](InstanceId a, InstanceId b) {
    const InstanceLoad& x = view.at(a);
    const InstanceLoad& y = view.at(b);
    return std::make_tuple(x.num_used_blocks(), x.num_sequences) <
           std::make_tuple(y.num_used_blocks(), y.num_sequences);
  });
  return order;
}

std::vector<FillTarget> targets_of(const ClusterView& view, std::span<const InstanceId> instances) {
  std::vector<FillTarget> targets;
  for (const InstanceId i : instances) {
    targets.push_back({view.at(i).num_used_blocks(), view.at(i).num_free_blocks});
  }
  return targets;
}

std::vector<BlockSpan> fill(const ClusterView& view, std::span<const InstanceId> instances,
                            int64_t num_blocks) {
  std::vector<BlockSpan> spans;
  const auto amounts = level_fill(targets_of(view, instances), num_blocks);
  for (size_t i = 0; amounts && i < instances.size(); ++i) {
    if ((*amounts)[i] > 0) spans.push_back({instances[i], (*amounts)[i]});
  }
  return spans;
}

int64_t num_free_on(const ClusterView& view, std::span<const InstanceId> instances) {
  return std::accumulate(
      instances.begin(), instances.end(), int64_t{0},
      [&](int64_t sum, InstanceId i) { return sum + view.at(i).num_free_blocks; });
}

// How high the fullest instance stands after a fill; -1 when it does not fit.
int64_t level_after(const ClusterView& view, std::span<const InstanceId> instances,
                    int64_t num_blocks) {
  const auto targets = targets_of(view, instances);
  const auto amounts = level_fill(targets, num_blocks);
  return amounts ? std::max(most_used(view), filled_level(targets, *amounts)) : -1;
}

bool has_fewer_rows(const InstanceLoad& a, const InstanceLoad& b) {
  return std::tie(a.num_sequences, a.num_rows) < std::tie(b.num_sequences, b.num_rows);
}

}  // namespace

int64_t DcpPolicy::slack_blocks(const ClusterView& view) const {
  return std::max<int64_t>(1, costs_.min_tokens_per_shard / view.block_size);
}

int64_t DcpPolicy::max_request_blocks(std::span<const int64_t> capacities,
                                      const RequestShape& /*shape*/) const {
  return std::accumulate(capacities.begin(), capacities.end(), int64_t{0});
}

std::optional<AdmissionDecision> DcpPolicy::plan_admission(const ClusterView& view,
                                                           const RequestShape& shape) const {
  AdmissionDecision decision;
  if (shape.num_new_blocks > 0) {
    decision.spans = plan_spans(view, shape);
    if (decision.spans.empty()) return std::nullopt;
  }
  decision.binding = choose_admission_binding(view, shape, decision.spans);
  if (decision.binding == kNoInstance) return std::nullopt;
  // New K/V stays at home when the binding's own span comes last.
  std::stable_partition(decision.spans.begin(), decision.spans.end(),
                        [&](const BlockSpan& span) { return span.holder != decision.binding; });
  return decision;
}

std::vector<BlockSpan> DcpPolicy::plan_spans(const ClusterView& view,
                                             const RequestShape& shape) const {
  return shape.placement->num_blocks() > 0 ? plan_more_spans(view, shape)
                                           : plan_new_spans(view, shape);
}

// A short request stays on one instance where one has room. Others go to the domain that they leave
// lowest; over domains only where none has room.
std::vector<BlockSpan> DcpPolicy::plan_new_spans(const ClusterView& view,
                                                 const RequestShape& shape) const {
  const int64_t count = shape.num_new_blocks;
  if (count < 2 * slack_blocks(view)) {
    const InstanceId local = choose_local(view, shape);
    if (local != kNoInstance) return {{local, count}};
  }
  std::vector<std::vector<InstanceId>> by_domain(static_cast<size_t>(view.num_domains()));
  const std::vector<InstanceId> order = by_use(view);
  for (const InstanceId i : order) by_domain[static_cast<size_t>(view.domain_of(i))].push_back(i);
  std::vector<BlockSpan> best;
  int64_t best_level = -1;
  for (const std::vector<InstanceId>& domain : by_domain) {
    std::vector<BlockSpan> spans = plan_spans_among(view, count, domain);
    int64_t level = 0;
    for (const BlockSpan& span : spans) {
      level = std::max(level, view.at(span.holder).num_used_blocks() + span.num_blocks);
    }
    if (spans.empty() || (best_level >= 0 && level >= best_level)) continue;
    best_level = level;
    best = std::move(spans);
  }
  if (best.empty()) best = plan_spans_among(view, count, order);
  if (best.size() != 1) return best;
  const InstanceId local = choose_local(view, shape);
  return {{local == kNoInstance ? best.front().holder : local, count}};
}

// The smallest degree that fits and whose level is within the slack of the best level to be had
// with shards worth having; not to split may cost what a split does. `order`: least used first.
std::vector<BlockSpan> DcpPolicy::plan_spans_among(const ClusterView& view, int64_t count,
                                                   std::span<const InstanceId> order) const {
  if (order.empty() || num_free_on(view, order) < count) return {};
  const int64_t slack = slack_blocks(view);
  const auto widest = static_cast<size_t>(
      std::clamp<int64_t>(count / slack, 1, static_cast<int64_t>(order.size())));
  const auto least_used = [&](size_t degree) { return order.first(degree); };
  size_t degree = widest;
  while (level_after(view, least_used(degree), count) < 0) ++degree;
  const int64_t best_level = level_after(view, least_used(degree), count);
  for (size_t smaller = 1; smaller < degree; ++smaller) {
    const int64_t level = level_after(view, least_used(smaller), count);
    const int64_t excess = smaller == 1 ? costs_.tokens_per_split / view.block_size : slack;
    if (level >= 0 && level <= best_level + excess) degree = smaller;
  }
  return fill(view, least_used(degree), count);
}

// Where KV tokens and rows, in tokens' worth, lift the two maxima least; then where both are
// lowest. Instances that can bind come first.
InstanceId DcpPolicy::choose_local(const ClusterView& view, const RequestShape& shape) const {
  int64_t most_blocks = 0;
  int32_t most_rows = 0;
  for (const InstanceLoad& load : view.instances) {
    most_blocks = std::max(most_blocks, load.num_used_blocks());
    most_rows = std::max(most_rows, load.num_sequences);
  }
  const double tokens_per_block = view.block_size;
  const auto rank = [&](const InstanceLoad& load) {
    const int64_t blocks = load.num_used_blocks() + shape.num_new_blocks;
    const int32_t rows = load.num_sequences + 1;
    const double lifted = tokens_per_block * static_cast<double>(std::max(most_blocks, blocks)) +
                          costs_.tokens_per_row * std::max(most_rows, rows);
    const double own =
        tokens_per_block * static_cast<double>(blocks) + costs_.tokens_per_row * rows;
    return std::make_tuple(!load.can_bind(), lifted, own);
  };
  InstanceId best = kNoInstance;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (view.at(i).num_free_blocks < shape.num_new_blocks) continue;
    if (best == kNoInstance || rank(view.at(i)) < rank(view.at(best))) best = i;
  }
  return best;
}

// For a request that comes back with a prefix: the missing end goes to its tail when it is short,
// else to its holders, and to others only for lack of room.
std::vector<BlockSpan> DcpPolicy::plan_more_spans(const ClusterView& view,
                                                  const RequestShape& shape) const {
  const int64_t count = shape.num_new_blocks;
  const InstanceId tail = shape.placement->tail_holder();
  if (count < slack_blocks(view) && view.at(tail).num_free_blocks >= count) return {{tail, count}};

  std::vector<InstanceId> chosen;
  for (const kvcache::Shard& shard : shape.placement->shards()) {
    if (view.at(shard.holder).num_free_blocks > 0) chosen.push_back(shard.holder);
  }
  for (const InstanceId i : by_use(view)) {
    if (num_free_on(view, chosen) >= count) break;
    if (std::find(chosen.begin(), chosen.end(), i) == chosen.end()) chosen.push_back(i);
  }
  return fill(view, chosen, count);
}

// A holder that can take the row: one that is no holder would cost every layer a round trip.
InstanceId DcpPolicy::choose_admission_binding(const ClusterView& view, const RequestShape& shape,
                                               const std::vector<BlockSpan>& spans) const {
  InstanceId best = kNoInstance;
  InstanceId best_holder = kNoInstance;
  for (InstanceId i = 0; i < view.num_instances(); ++i) {
    if (!view.at(i).can_bind()) continue;
    const auto takes = [i](const BlockSpan& span) { return span.holder == i; };
    const bool holds =
        shape.placement->find_shard(i) != nullptr || std::any_of(spans.begin(), spans.end(), takes);
    if (best == kNoInstance || has_fewer_rows(view.at(i), view.at(best))) best = i;
    if (!holds) continue;
    if (best_holder == kNoInstance || has_fewer_rows(view.at(i), view.at(best_holder))) {
      best_holder = i;
    }
  }
  return best_holder != kNoInstance ? best_holder : best;
}

// The tail stays where it is unless that instance is full or, for a request worth splitting,
// stands out by more than the slack; then the least used holder, or a new one, takes over.
std::optional<InstanceId> DcpPolicy::plan_growth(const ClusterView& view,
                                                 const RequestShape& shape) const {
  const InstanceId tail = shape.placement->tail_holder();
  int64_t used = 0;
  for (const InstanceLoad& load : view.instances) used += load.num_used_blocks();
  const int64_t limit = used / view.num_instances() + slack_blocks(view);
  const auto has_room = [&](InstanceId i) {
    return view.at(i).num_free_blocks > 0 && view.at(i).num_used_blocks() <= limit;
  };
  const bool is_short = shape.num_tokens < 2 * costs_.min_tokens_per_shard;
  if (has_room(tail) || (is_short && view.at(tail).num_free_blocks > 0)) return tail;

  const std::vector<InstanceId> order = by_use(view);
  for (const InstanceId i : order) {
    if (shape.placement->find_shard(i) != nullptr && has_room(i)) return i;
  }
  for (const InstanceId i : order) {
    if (view.domain_of(i) == view.domain_of(tail)) return i;
  }
  if (order.empty()) return std::nullopt;
  return order.front();
}

bool DcpPolicy::permits_growth(const ClusterView& /*view*/, const RequestShape& /*shape*/,
                               InstanceId /*instance*/) const {
  return true;
}

// A local request stays. A split one moves to a holder when that lowers the larger of the two
// counts of sequences, or when its own instance has no row left for it.
InstanceId DcpPolicy::plan_binding(const ClusterView& view, const BindingQuery& query) const {
  const auto shards = query.placement->shards();
  if (shards.size() <= 1 && query.placement->tail_holder() == query.current) return query.current;
  const bool must_move = view.at(query.current).num_rows_left() == 0;
  InstanceId best = query.current;
  for (const kvcache::Shard& shard : shards) {
    const InstanceLoad& load = view.at(shard.holder);
    if (shard.holder == query.current || !load.can_bind()) continue;
    const InstanceLoad& other = view.at(best);
    // The sequence itself is still counted where it is bound now.
    const int32_t others = other.num_sequences - (best == query.current ? 1 : 0);
    const bool is_stuck = must_move && best == query.current;
    if (is_stuck || load.num_sequences < others) best = shard.holder;
  }
  return best;
}

}  // namespace nanocp::scheduler
