#include "kvcache/retired_lists.h"

#include <gtest/gtest.h>

#include "kvcache/kv_placement.h"

namespace nanocp::kvcache {
namespace {

TEST(RetiredLists, HandsOutWhatNobodyReads) {
  RetiredLists lists;
  std::vector<int32_t> list = lists.take(20);
  EXPECT_GE(list.capacity(), 20U);
  list.assign(20, 7);
  const int32_t* const memory = list.data();
  lists.add(std::move(list));
  EXPECT_NE(lists.take(20).data(), memory);  // a plan may show it
  lists.free_older();
  EXPECT_NE(lists.take(20).data(), memory);  // the plan after it may be under way
  lists.free_older();
  EXPECT_NE(lists.take(40).data(), memory);  // too small
  const std::vector<int32_t> again = lists.take(25);
  EXPECT_EQ(again.data(), memory);
  EXPECT_TRUE(again.empty());
}

TEST(RetiredLists, KeepsAnyCapacityWithinItsClass) {
  RetiredLists lists;
  for (size_t capacity = 1; capacity < 5000; capacity = capacity * 5 / 4 + 1) {
    std::vector<int32_t> list;
    list.reserve(capacity);
    lists.add(std::move(list));
  }
  lists.free_older();
  lists.free_older();
  for (size_t wanted = 1; wanted < 5000; wanted = wanted * 3 / 2 + 1) {
    EXPECT_GE(lists.take(wanted).capacity(), wanted);
  }
}

// What a plan shows stays as it is while other sequences come and go.
TEST(RetiredLists, PlacementsDoNotWriteToWhatPlansShow) {
  RetiredLists lists;
  KvPlacement first(16, &lists);
  for (BlockId block = 0; block < 10; ++block) first.append_block({0, block});
  const std::span<const BlockId> shown = first.shards()[0].blocks;
  first.clear();
  for (int step = 0; step < 2; ++step) {
    KvPlacement other(16, &lists);
    for (BlockId block = 100; block < 140; ++block) other.append_block({0, block});
    for (size_t i = 0; i < shown.size(); ++i) ASSERT_EQ(shown[i], static_cast<BlockId>(i));
    other.clear();
    if (step == 0) lists.free_older();
  }
}

}  // namespace
}  // namespace nanocp::kvcache
