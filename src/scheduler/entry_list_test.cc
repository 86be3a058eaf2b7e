#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <vector>

#include "base/random.h"
#include "scheduler/entry.h"

namespace nanocp::scheduler {
namespace {

// Against a set: a queue that is joined at the end, left at the front, and entered anywhere by
// those that come back.
TEST(EntryList, AgreesWithASet) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    EntryList list;
    std::set<Entry*, BySeniority> naive;
    std::vector<std::unique_ptr<Entry>> entries;
    for (uint64_t op = 0; op < 3000; ++op) {
      const uint64_t kind = random.below(10);
      if (kind < 4) {
        const auto priority = static_cast<int32_t>(random.below(20) == 0 ? random.below(3) : 1);
        entries.push_back(std::make_unique<Entry>(Entry{.sequence = nullptr,
                                                        .placement = kvcache::KvPlacement(1),
                                                        .priority = priority,
                                                        .arrival = op,
                                                        .max_blocks = 1}));
        list.insert(entries.back().get());
        naive.insert(entries.back().get());
      } else if (kind < 6 && !naive.empty()) {
        Entry* first = *naive.begin();
        list.erase(first);
        naive.erase(first);
      } else if (!entries.empty()) {
        Entry* any = entries[random.below(entries.size())].get();
        if (kind < 8) {
          list.erase(any);
          naive.erase(any);
        } else {
          list.insert(any);
          naive.insert(any);
        }
      }
      ASSERT_EQ(list.size(), naive.size());
      list.check_integrity();
      std::vector<Entry*> found(list.slots().begin(), list.slots().end());
      found.erase(std::remove(found.begin(), found.end(), nullptr), found.end());
      ASSERT_TRUE(std::equal(found.begin(), found.end(), naive.begin(), naive.end()));
      ASSERT_TRUE(list.empty() || list.slots().front() != nullptr);
    }
  }
}

}  // namespace
}  // namespace nanocp::scheduler
