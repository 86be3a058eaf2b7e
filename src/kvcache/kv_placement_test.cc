#include "kvcache/kv_placement.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace nanocp::kvcache {
namespace {

TEST(KvPlacement, TailMovesAwayAndBack) {
  KvPlacement placement(4);
  placement.append_block({0, 10});
  placement.append_block({2, 20});
  placement.append_block({0, 11});
  placement.advance(9);
  EXPECT_EQ(placement.degree(), 2);
  EXPECT_EQ(placement.tail_holder(), 0);
  EXPECT_EQ(placement.find_shard(0)->block_idx, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(placement.find_shard(0)->num_tokens, 5);
  EXPECT_EQ(placement.find_shard(2)->num_tokens, 4);
  EXPECT_EQ(placement.find_shard(1), nullptr);
  EXPECT_EQ(placement.slot_of(3), 43);
  EXPECT_EQ(placement.slot_of(4), 80);
  EXPECT_EQ(placement.slot_of(8), 44);
  placement.check_integrity();
}

TEST(KvPlacement, TruncateDropsWholeBlocksFromTheEnd) {
  KvPlacement placement(4);
  for (BlockId block = 0; block < 4; ++block) placement.append_block({block % 2, block});
  placement.advance(14);
  const auto dropped = placement.truncate(5);
  ASSERT_EQ(dropped.size(), 2U);
  EXPECT_EQ(dropped[0].block, 3);
  EXPECT_EQ(dropped[1].block, 2);
  EXPECT_EQ(placement.num_tokens(), 5);
  EXPECT_EQ(placement.find_shard(1)->num_tokens, 1);
  placement.check_integrity();
  EXPECT_EQ(placement.truncate(4).size(), 1U);
  EXPECT_EQ(placement.find_shard(1), nullptr);
  placement.check_integrity();
}

TEST(KvPlacement, EmptyShardsStayUntilCleared) {
  KvPlacement placement(4);
  placement.add_holder(3);
  placement.append_block({1, 0});
  placement.add_holder(1);
  EXPECT_EQ(placement.shards().size(), 2U);
  EXPECT_EQ(placement.degree(), 1);
  placement.check_integrity();
  placement.clear();
  EXPECT_TRUE(placement.shards().empty());
  EXPECT_EQ(placement.tail_holder(), kNoInstance);
}

TEST(KvPlacement, BlocksForRoundsUp) {
  EXPECT_EQ(blocks_for(0, 16), 0);
  EXPECT_EQ(blocks_for(1, 16), 1);
  EXPECT_EQ(blocks_for(16, 16), 1);
  EXPECT_EQ(blocks_for(17, 16), 2);
}

TEST(KvPlacementDeathTest, WritingWithoutABlockAborts) {
  KvPlacement placement(4);
  placement.append_block({0, 0});
  EXPECT_DEATH(placement.advance(5), "check failed");
}

// A sequence as a plain list of tokens, each with the place it was written to.
struct NaivePlacement {
  std::vector<HeldBlock> blocks;
  int64_t num_tokens = 0;

  std::map<InstanceId, int64_t> tokens_per_holder(int32_t block_size) const {
    std::map<InstanceId, int64_t> tokens;
    for (int64_t t = 0; t < num_tokens; ++t) {
      ++tokens[blocks[static_cast<size_t>(t / block_size)].holder];
    }
    return tokens;
  }
};

void compare(const KvPlacement& placement, const NaivePlacement& naive) {
  placement.check_integrity();
  ASSERT_EQ(placement.num_tokens(), naive.num_tokens);
  ASSERT_EQ(placement.num_blocks(), std::ssize(naive.blocks));
  auto tokens = naive.tokens_per_holder(placement.block_size());
  for (const Shard& shard : placement.shards()) {
    ASSERT_EQ(shard.num_tokens, tokens[shard.holder]);
    for (size_t b = 0; b < shard.blocks.size(); ++b) {
      const HeldBlock& held = naive.blocks[static_cast<size_t>(shard.block_idx[b])];
      ASSERT_EQ(held.holder, shard.holder);
      ASSERT_EQ(held.block, shard.blocks[b]);
    }
  }
  for (int64_t t = 0; t < naive.num_tokens; ++t) {
    const HeldBlock& held = naive.blocks[static_cast<size_t>(t / placement.block_size())];
    ASSERT_EQ(placement.block_of(t).holder, held.holder);
    ASSERT_EQ(placement.slot_of(t),
              int64_t{held.block} * placement.block_size() + t % placement.block_size());
  }
}

TEST(KvPlacement, AgreesWithANaiveOracle) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const auto block_size = static_cast<int32_t>(random.between(1, 5));
    KvPlacement placement(block_size);
    NaivePlacement naive;
    BlockId next_block = 0;
    for (int op = 0; op < 1000; ++op) {
      const int64_t room = placement.capacity_tokens() - placement.num_tokens();
      const uint64_t kind = random.below(20);
      if (kind < 9) {
        const HeldBlock held{static_cast<InstanceId>(random.below(4)), next_block++};
        placement.append_block(held);
        naive.blocks.push_back(held);
      } else if (kind < 18) {
        const int64_t count = random.between(0, room);
        placement.advance(count);
        naive.num_tokens += count;
      } else if (kind < 19) {
        placement.add_holder(static_cast<InstanceId>(random.below(4)));
      } else {
        const int64_t kept = random.between(naive.num_tokens / 2, naive.num_tokens);
        const auto num_blocks = static_cast<size_t>(blocks_for(kept, block_size));
        ASSERT_EQ(placement.truncate(kept).size(), naive.blocks.size() - num_blocks);
        naive.blocks.resize(num_blocks);
        naive.num_tokens = kept;
      }
      compare(placement, naive);
    }
  }
}

}  // namespace
}  // namespace nanocp::kvcache
