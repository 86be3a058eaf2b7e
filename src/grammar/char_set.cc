#include "grammar/char_set.h"

#include <algorithm>

namespace nanocp::grammar {
namespace {

constexpr char32_t kLast = 0x10ffff;
constexpr char32_t kBeforeSurrogates = 0xd7ff;
constexpr char32_t kAfterSurrogates = 0xe000;

}  // namespace

CharSet::CharSet(std::vector<CharRange> ranges) {
  std::vector<CharRange> valid;
  for (const CharRange& range : ranges) {
    const char32_t high = std::min(range.high, kLast);
    const CharRange below = {range.low, std::min(high, kBeforeSurrogates)};
    const CharRange above = {std::max(range.low, kAfterSurrogates), high};
    if (below.low <= below.high) valid.push_back(below);
    if (above.low <= above.high) valid.push_back(above);
  }
  std::sort(valid.begin(), valid.end(),
            [](const CharRange& a, const CharRange& b) { return a.low < b.low; });
  for (const CharRange& range : valid) {
    const bool joins = !ranges_.empty() && range.low <= ranges_.back().high + 1;
    if (joins) {
      ranges_.back().high = std::max(ranges_.back().high, range.high);
    } else {
      ranges_.push_back(range);
    }
  }
}

CharSet CharSet::all() {
  return {{0, kLast}};
}

bool CharSet::contains(char32_t c) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [c](const CharRange& range) { return range.low <= c && c <= range.high; });
}

CharSet CharSet::united(const CharSet& other) const {
  std::vector<CharRange> both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CharSet(std::move(both));
}

CharSet CharSet::inverted() const {
  std::vector<CharRange> gaps;
  char32_t low = 0;
  for (const CharRange& range : ranges_) {
    if (low < range.low) gaps.push_back({low, static_cast<char32_t>(range.low - 1)});
    low = range.high + 1;
  }
  if (low <= kLast) gaps.push_back({low, kLast});
  return CharSet(std::move(gaps));
}

CharSet CharSet::intersected(const CharSet& other) const {
  std::vector<CharRange> common;
  size_t i = 0;
  size_t j = 0;
  while (i < ranges_.size() && j < other.ranges_.size()) {
    const CharRange& a = ranges_[i];
    const CharRange& b = other.ranges_[j];
    const CharRange both = {std::max(a.low, b.low), std::min(a.high, b.high)};
    if (both.low <= both.high) common.push_back(both);
    if (a.high < b.high) {
      ++i;
    } else {
      ++j;
    }
  }
  return CharSet(std::move(common));
}

}  // namespace nanocp::grammar
