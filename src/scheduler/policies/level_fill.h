// Water-filling: the one rule by which all policies spread blocks over instances. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nanocp::scheduler {

struct FillTarget {
  int64_t level;     // what is there already
  int64_t capacity;  // how much more fits
};

// How much of `amount` each target gets so that the highest level of those that get something is
// as low as possible; remainders go to the first. Nothing when it does not fit.
std::optional<std::vector<int64_t>> level_fill(std::span<const FillTarget> targets, int64_t amount);

// The highest level among targets that got something; 0 when none did.
int64_t filled_level(std::span<const FillTarget> targets, std::span<const int64_t> amounts);

}  // namespace nanocp::scheduler
