#include "scheduler/entry_table.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace nanocp::scheduler {
namespace {

// Against a map, with ids that follow each other and ids that collide.
TEST(EntryTable, AgreesWithAMap) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    kvcache::RetiredLists retired;
    EntryTable table(16, &retired);
    std::map<SequenceId, request::Sequence> sequences;
    SequenceId next_id = random.below(2) == 0 ? 0 : 1ULL << 40;
    const uint64_t stride = random.below(2) == 0 ? 1 : 64;
    for (uint64_t op = 0; op < 4000; ++op) {
      if (random.below(1000) < 500 + (op < 1500 ? 100U : 0U)) {
        request::Sequence& sequence = sequences[next_id];
        sequence.id = next_id;
        next_id += 1 + stride * random.below(3);
        const Entry& entry = table.add(&sequence, op, 9);
        EXPECT_EQ(entry.arrival, op);
        EXPECT_EQ(entry.output_class, -1);
        EXPECT_EQ(entry.num_overtaken, 0);
      } else if (!sequences.empty()) {
        const auto found = sequences.lower_bound(random.below(next_id + 1));
        if (found == sequences.end()) continue;
        Entry& entry = *table.find(found->first);
        entry.num_overtaken = 3;  // not seen when it is used again
        entry.output_class = 5;
        table.erase(entry);
        EXPECT_EQ(table.find(found->first), nullptr);
        sequences.erase(found);
      }
      ASSERT_EQ(table.size(), sequences.size());
    }
    for (auto& [id, sequence] : sequences) {
      ASSERT_NE(table.find(id), nullptr);
      EXPECT_EQ(table.find(id)->sequence, &sequence);
    }
    size_t num_visited = 0;
    table.visit([&](const Entry& entry) { num_visited += sequences.count(entry.id()); });
    EXPECT_EQ(num_visited, sequences.size());
  }
}

TEST(EntryTableDeathTest, MisuseAborts) {
  kvcache::RetiredLists retired;
  EntryTable table(16, &retired);
  request::Sequence sequence;
  sequence.id = 4;
  Entry& entry = table.add(&sequence, 0, 1);
  EXPECT_DEATH(table.add(&sequence, 1, 1), "check failed");
  entry.placement.append_block({0, 0});
  EXPECT_DEATH(table.erase(entry), "check failed");
}

}  // namespace
}  // namespace nanocp::scheduler
