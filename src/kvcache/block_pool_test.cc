#include "kvcache/block_pool.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace nanocp::kvcache {
namespace {

TEST(BlockPool, HandsOutEveryBlockOnce) {
  BlockPool pool(5);
  std::map<BlockId, int> seen;
  while (pool.num_free() > 0) ++seen[pool.allocate(1)];
  EXPECT_EQ(seen.size(), 5U);
  EXPECT_EQ(seen.begin()->first, 0);
  EXPECT_EQ(seen.rbegin()->first, 4);
  EXPECT_EQ(pool.num_used(), 5);
}

TEST(BlockPool, KnowsTheOwner) {
  BlockPool pool(2);
  const BlockId block = pool.allocate(7);
  EXPECT_TRUE(pool.owns(7, block));
  EXPECT_FALSE(pool.owns(8, block));
  EXPECT_FALSE(pool.owns(7, block + 1));
  EXPECT_FALSE(pool.owns(7, -1));
  EXPECT_FALSE(pool.owns(7, 2));
}

TEST(BlockPoolDeathTest, MisuseAborts) {
  BlockPool pool(2);
  const BlockId block = pool.allocate(7);
  EXPECT_DEATH(pool.free(block, 8), "check failed");
  EXPECT_DEATH(pool.free(9, 7), "check failed");
  pool.free(block, 7);
  EXPECT_DEATH(pool.free(block, 7), "check failed");
  pool.allocate(1);
  pool.allocate(1);
  EXPECT_DEATH(pool.allocate(1), "check failed");
}

// Against a map from block to owner.
TEST(BlockPool, AgreesWithANaiveOracle) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const int64_t num_blocks = random.between(1, 40);
    BlockPool pool(num_blocks);
    std::map<BlockId, SequenceId> owner_of;
    for (int op = 0; op < 2000; ++op) {
      const bool allocates = random.below(2) == 0 ? pool.num_free() > 0 : owner_of.empty();
      if (allocates) {
        const SequenceId owner = random.below(5);
        const BlockId block = pool.allocate(owner);
        ASSERT_TRUE(owner_of.emplace(block, owner).second) << "block " << block << " given twice";
        ASSERT_LT(block, num_blocks);
      } else if (!owner_of.empty()) {
        auto it = owner_of.begin();
        std::advance(it, static_cast<int64_t>(random.below(owner_of.size())));
        pool.free(it->first, it->second);
        owner_of.erase(it);
      }
      ASSERT_EQ(pool.num_used(), std::ssize(owner_of));
      for (const auto& [block, owner] : owner_of) ASSERT_TRUE(pool.owns(owner, block));
      pool.check_integrity();
    }
  }
}

}  // namespace
}  // namespace nanocp::kvcache
