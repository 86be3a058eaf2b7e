// Lists of blocks that placements have replaced while plans of steps in flight still point to them.
// Those that no plan shows any more are handed out again, so that requests that come and go
// allocate nothing. Owned by the scheduler, which says when a list can have no reader; one thread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace nanocp::kvcache {

class RetiredLists {
 public:
  void add(std::vector<int32_t>&& list) {
    if (list.capacity() > 0) recent_.push_back(std::move(list));
  }
  // What was added before the last call of this has no reader any more.
  void free_older() {
    for (std::vector<int32_t>& list : older_) keep(std::move(list));
    older_.clear();
    std::swap(older_, recent_);
  }
  // An empty list with room for so many.
  std::vector<int32_t> take(size_t capacity) {
    const size_t rounded = std::max(kSmallest, std::bit_ceil(capacity));
    const auto idx = static_cast<size_t>(std::countr_zero(rounded / kSmallest));
    std::vector<int32_t> list;
    if (idx < spare_.size() && !spare_[idx].empty()) {
      list = std::move(spare_[idx].back());
      spare_[idx].pop_back();
    } else {
      list.reserve(rounded);
    }
    return list;
  }

 private:
  static constexpr size_t kSmallest = 16;
  static constexpr size_t kMostKept = 1 << 18;  // numbers, of lists of about one size

  void keep(std::vector<int32_t>&& list) {
    if (list.capacity() < kSmallest) return;
    const auto idx = static_cast<size_t>(std::bit_width(list.capacity() / kSmallest)) - 1;
    if (idx >= spare_.size() || (spare_[idx].size() << idx) * kSmallest >= kMostKept) return;
    list.clear();
    spare_[idx].push_back(std::move(list));
  }

  std::vector<std::vector<int32_t>> recent_;
  std::vector<std::vector<int32_t>> older_;
  // Spare ones with room for kSmallest, twice as many, ... and less than twice that.
  std::array<std::vector<std::vector<int32_t>>, 8> spare_;
};

}  // namespace nanocp::kvcache
