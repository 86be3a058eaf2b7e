#include "scheduler/entry.h"

#include <algorithm>

#include "base/check.h"

namespace nanocp::scheduler {

size_t EntryList::lower_bound(const Seniority& key) const {
  return static_cast<size_t>(std::lower_bound(keys_.begin(), keys_.end(), key) - keys_.begin());
}

bool EntryList::contains(const Entry* entry) const {
  const size_t at = lower_bound(seniority_of(*entry));
  return at < slots_.size() && slots_[at] == entry;
}

// Into a gap if there is one where it belongs.
void EntryList::insert(Entry* entry) {
  const Seniority key = seniority_of(*entry);
  const bool is_last = keys_.empty() || keys_.back() < key;  // the youngest, as a rule
  size_t at = is_last ? keys_.size() : lower_bound(key);
  if (at < slots_.size() && slots_[at] == entry) return;
  ++size_;
  const bool is_gap = at < slots_.size() && slots_[at] == nullptr;
  if (!is_gap && at > 0 && slots_[at - 1] == nullptr) --at;
  if (is_gap || (at < slots_.size() && slots_[at] == nullptr)) {
    keys_[at] = key;
    slots_[at] = entry;
    begin_ = std::min(begin_, at);
    return;
  }
  keys_.insert(keys_.begin() + static_cast<ptrdiff_t>(at), key);
  slots_.insert(slots_.begin() + static_cast<ptrdiff_t>(at), entry);
}

void EntryList::erase(Entry* entry) {
  const size_t at = lower_bound(seniority_of(*entry));
  if (at >= slots_.size() || slots_[at] != entry) return;
  slots_[at] = nullptr;
  --size_;
  while (begin_ < slots_.size() && slots_[begin_] == nullptr) ++begin_;
  constexpr size_t kFewGaps = 16;
  if (slots_.size() > 2 * size_ + kFewGaps) close_gaps();
}

void EntryList::close_gaps() {
  size_t end = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] == nullptr) continue;
    keys_[end] = keys_[i];
    slots_[end++] = slots_[i];
  }
  keys_.resize(end);
  slots_.resize(end);
  begin_ = 0;
}

void EntryList::check_integrity() const {
  NANOCP_CHECK(std::is_sorted(keys_.begin(), keys_.end()));
  size_t count = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i] == nullptr) continue;
    NANOCP_CHECK(seniority_of(*slots_[i]) == keys_[i]);
    ++count;
  }
  NANOCP_CHECK_EQ(count, size_);
}

}  // namespace nanocp::scheduler
