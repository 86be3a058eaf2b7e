#include "scheduler/scheduler_state.h"

#include <algorithm>

#include "base/check.h"

namespace nanocp::scheduler {

void EntryList::insert(Entry* entry) {
  entries_.insert(std::lower_bound(entries_.begin(), entries_.end(), entry, BySeniority()), entry);
}

void EntryList::erase(Entry* entry) {
  const auto found = std::lower_bound(entries_.begin(), entries_.end(), entry, BySeniority());
  NANOCP_CHECK(found != entries_.end() && *found == entry);
  entries_.erase(found);
}

}  // namespace nanocp::scheduler
