// Lists of blocks that placements have replaced while plans of steps in flight still point to them.
// Owned by the scheduler, which says when a list can have no reader any more; one thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace nanocp::kvcache {

class RetiredLists {
 public:
  void add(std::vector<int32_t>&& list) {
    if (list.capacity() > 0) recent_.push_back(std::move(list));
  }
  // Frees what was added before the last call of this.
  void free_older() {
    older_.clear();
    std::swap(older_, recent_);
  }

 private:
  std::vector<std::vector<int32_t>> recent_;
  std::vector<std::vector<int32_t>> older_;
};

}  // namespace nanocp::kvcache
