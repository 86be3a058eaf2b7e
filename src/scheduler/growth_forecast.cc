#include "scheduler/growth_forecast.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace nanocp::scheduler {
namespace {

// By so many standard deviations fewer of them end than expected.
constexpr double kDeviations = 1.5;

}  // namespace

GrowthForecast::GrowthForecast(int32_t num_instances, int32_t block_size)
    : block_size_(block_size),
      sums_(static_cast<size_t>(num_instances)),
      outlooks_(sums_.size()),
      is_known_(sums_.size(), 0) {}

void GrowthForecast::enter(Entry& entry) {
  count_outputs(entry);
  add(entry, +1, sums_);
  forget_outlook(entry);
}

void GrowthForecast::leave(const Entry& entry) {
  add(entry, -1, sums_);
  forget_outlook(entry);
}

void GrowthForecast::end(Entry& entry) {
  if (entry.output_class < 0) return;  // it has never run
  count_outputs(entry);
  history_.end(entry.output_class);
}

void GrowthForecast::count_outputs(Entry& entry) {
  const int32_t now = output_class(entry.sequence->num_outputs());
  history_.reach(entry.output_class, now);
  entry.output_class = now;
}

void GrowthForecast::add(const Entry& entry, int32_t sign, std::vector<Sums>& sums) {
  const int32_t parts = sign * parts_of(entry.placement.degree());
  const int64_t growth = entry.max_blocks - entry.placement.num_blocks();
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    if (shard.blocks.empty()) continue;
    const auto i = static_cast<size_t>(shard.holder);
    Group& group = sums[i].by_class[static_cast<size_t>(entry.output_class)];
    group.num_sequences += sign;
    group.num_blocks += sign * static_cast<int32_t>(shard.blocks.size());
    group.num_parts += parts;
    sums[i].most_growth += parts * growth;
  }
}

void GrowthForecast::forget_outlook(const Entry& entry) {
  for (const kvcache::Shard& shard : entry.placement.shards()) {
    is_known_[static_cast<size_t>(shard.holder)] = 0;
  }
}

// Anew when the history has grown by a good part, or by many.
void GrowthForecast::refresh_shares() const {
  const int64_t num_new = history_.num_ended() - num_ended_in_shares_;
  const bool are_recent = num_new <= std::min<int64_t>(64, history_.num_ended() / 16);
  if (num_ended_in_shares_ >= 0 && are_recent) return;
  num_ended_in_shares_ = history_.num_ended();
  const OutputHistory::Shares reaching = history_.shares_reaching();
  for (int32_t i = 0; i < kNumOutputClasses; ++i) {
    const int64_t middle = (output_class_begin(i) + output_class_begin(i + 1) - 1) / 2;
    const double now = share_reaching(reaching, static_cast<double>(middle));
    for (size_t k = 0; k < kHorizons.size(); ++k) {
      const double then = static_cast<double>(middle) + kHorizons[k] * block_size_;
      shares_[static_cast<size_t>(i)][k] = share_reaching(reaching, then) / now;
    }
  }
  std::fill(is_known_.begin(), is_known_.end(), 0);
}

// How many of them end varies as with coins; those that do are taken to be as large as the mean.
void GrowthForecast::Outlook::add(const Group& group, const ByHorizon& shares) {
  if (group.num_sequences == 0) return;
  const auto num_sequences = static_cast<double>(group.num_sequences);
  const auto num_blocks = static_cast<double>(group.num_blocks);
  const double growing = static_cast<double>(group.num_parts) / kParts;
  num_growing += growing;
  for (size_t k = 0; k < kHorizons.size(); ++k) {
    const double all = num_blocks + growing * kHorizons[k];
    mean[k] += shares[k] * all - num_blocks;
    variance[k] += shares[k] * (1.0 - shares[k]) * all * all / num_sequences;
  }
}

// Never more than if nobody ended, or if all got to their max_tokens.
double GrowthForecast::Outlook::at(size_t horizon, int64_t most_growth) const {
  const double all_grow = num_growing * kHorizons[horizon];
  const double most = static_cast<double>(most_growth) / kParts;
  const double expected = mean[horizon] + kDeviations * std::sqrt(variance[horizon]);
  return std::min({expected, all_grow, most});
}

GrowthForecast::Outlook GrowthForecast::outlook(InstanceId instance,
                                                const Newcomers& newcomers) const {
  refresh_shares();
  const auto i = static_cast<size_t>(instance);
  if (is_known_[i] == 0) {
    is_known_[i] = 1;
    outlooks_[i] = {};
    for (size_t c = 0; c < shares_.size(); ++c) outlooks_[i].add(sums_[i].by_class[c], shares_[c]);
  }
  Outlook with_newcomers = outlooks_[i];
  with_newcomers.add(newcomers.group, shares_[0]);
  return with_newcomers;
}

bool GrowthForecast::fits(InstanceId instance, int64_t num_free, const Newcomers& newcomers) const {
  const int64_t most = most_growth(instance, newcomers);
  if (num_free * kParts >= most) return true;
  const Outlook ahead = outlook(instance, newcomers);
  for (size_t k = 0; k < kHorizons.size(); ++k) {
    if (ahead.at(k, most) > static_cast<double>(num_free)) return false;
  }
  return true;
}

int64_t GrowthForecast::room(InstanceId instance, int64_t num_free, const Newcomers& newcomers,
                             int64_t max_growth) const {
  const int64_t most_others = most_growth(instance, newcomers);
  const Outlook ahead = outlook(instance, newcomers);
  auto most = static_cast<double>(num_free);
  for (size_t k = 0; k < kHorizons.size(); ++k) {
    const double left = static_cast<double>(num_free) - ahead.at(k, most_others);
    const double growth = std::min(kHorizons[k], static_cast<double>(max_growth));
    most = std::min(most, left / shares_[0][k] - growth);
  }
  return static_cast<int64_t>(std::floor(most));
}

void GrowthForecast::check_integrity(const std::vector<const Entry*>& running) const {
  std::vector<Sums> expected(sums_.size());
  for (const Entry* entry : running) add(*entry, +1, expected);
  NANOCP_CHECK(expected == sums_);
}

}  // namespace nanocp::scheduler
