#include "scheduler/policies/level_fill.h"

#include <algorithm>

namespace nanocp::scheduler {
namespace {

int64_t room_below(const FillTarget& target, int64_t level) {
  return std::clamp<int64_t>(level - target.level, 0, target.capacity);
}

int64_t room_below(std::span<const FillTarget> targets, int64_t level) {
  int64_t sum = 0;
  for (const FillTarget& target : targets) sum += room_below(target, level);
  return sum;
}

}  // namespace

std::optional<std::vector<int64_t>> level_fill(std::span<const FillTarget> targets,
                                               int64_t amount) {
  int64_t low = 0;
  int64_t high = 0;
  for (const FillTarget& target : targets) high = std::max(high, target.level + target.capacity);
  if (room_below(targets, high) < amount) return std::nullopt;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (room_below(targets, middle) >= amount) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  std::vector<int64_t> amounts;
  int64_t left = amount;
  for (const FillTarget& target : targets) {
    amounts.push_back(room_below(target, low - 1));
    left -= amounts.back();
  }
  for (size_t i = 0; i < targets.size() && left > 0; ++i) {
    const int64_t more = room_below(targets[i], low) - amounts[i];
    amounts[i] += more;
    left -= more;
  }
  return amounts;
}

int64_t filled_level(std::span<const FillTarget> targets, std::span<const int64_t> amounts) {
  int64_t level = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (amounts[i] > 0) level = std::max(level, targets[i].level + amounts[i]);
  }
  return level;
}

}  // namespace nanocp::scheduler
