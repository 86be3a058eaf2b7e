#include "scheduler/growth_forecast.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace nanocp::scheduler {
namespace {

constexpr int32_t kBlockSize = 16;
using Newcomers = GrowthForecast::Newcomers;

// Two instances and sequences on them.
struct Cluster {
  GrowthForecast forecast{2, kBlockSize};
  std::vector<std::unique_ptr<request::Sequence>> sequences;
  std::vector<std::unique_ptr<Entry>> entries;
  BlockId next_block = 0;

  // With `num_blocks` on each of the first `degree` instances.
  Entry& start(int64_t num_blocks, int64_t max_blocks, InstanceId degree = 1) {
    sequences.push_back(std::make_unique<request::Sequence>());
    entries.push_back(std::make_unique<Entry>(Entry{.sequence = sequences.back().get(),
                                                    .placement = kvcache::KvPlacement(kBlockSize),
                                                    .priority = 0,
                                                    .arrival = entries.size(),
                                                    .max_blocks = max_blocks}));
    for (InstanceId holder = 0; holder < degree; ++holder) {
      for (int64_t i = 0; i < num_blocks; ++i) {
        entries.back()->placement.append_block({holder, next_block++});
      }
    }
    forecast.enter(*entries.back());
    return *entries.back();
  }

  void write(Entry& entry, int num_outputs) {
    forecast.leave(entry);
    entry.sequence->output.resize(static_cast<size_t>(num_outputs));
    forecast.enter(entry);
  }

  void end(Entry& entry) {
    forecast.leave(entry);
    forecast.end(entry);
  }

  // As if so many with outputs of this length had come and gone.
  void learn(int num_outputs, int count) {
    for (int i = 0; i < count; ++i) {
      Entry& entry = start(1, 1000);
      entry.sequence->output.resize(static_cast<size_t>(num_outputs));
      end(entry);
    }
  }

  // Fewest free blocks with which everything is expected to fit.
  int64_t reserve(InstanceId instance, const Newcomers& newcomers = {}) const {
    int64_t num_free = 0;
    while (!forecast.fits(instance, num_free, newcomers)) ++num_free;
    return num_free;
  }
};

TEST(GrowthForecast, NothingRunsNothingIsReserved) {
  const Cluster cluster;
  EXPECT_EQ(cluster.reserve(0), 0);
  EXPECT_EQ(cluster.forecast.room(0, 50, {}, 0), 50);
}

TEST(GrowthForecast, ReservesNoMoreThanMaxTokensAllow) {
  Cluster cluster;
  for (int i = 0; i < 10; ++i) cluster.start(5, 7);
  EXPECT_EQ(cluster.reserve(0), 20);
  EXPECT_EQ(cluster.reserve(1), 0);
}

// Ten that begin together grow to about 20 blocks each before the first one ends.
TEST(GrowthForecast, ReservesWhatBurstsGrowTo) {
  Cluster cluster;
  cluster.learn(320, 1000);
  for (int i = 0; i < 10; ++i) cluster.start(2, 1000);
  EXPECT_NEAR(static_cast<double>(cluster.reserve(0)), 180.0, 40.0);
}

// Outputs are short against prompts: when one in ten ends, its blocks are enough for the others.
TEST(GrowthForecast, ReservesLittleWhereWhatEndsMakesRoom) {
  Cluster cluster;
  for (int length = 20; length <= 200; length += 20) cluster.learn(length, 100);
  for (int i = 0; i < 100; ++i) cluster.write(cluster.start(200, 10'000), 2 * i);
  EXPECT_LE(cluster.reserve(0), 400);  // 2 % of what is in use
  Cluster small;
  for (int length = 20; length <= 200; length += 20) small.learn(length, 100);
  for (int i = 0; i < 100; ++i) small.start(1, 10'000);
  EXPECT_GE(small.reserve(0), 200);  // twice of what is in use
}

TEST(GrowthForecast, ASplitSequenceGrowsOnAllItsHolders) {
  Cluster cluster;
  cluster.learn(3200, 1000);
  for (int i = 0; i < 8; ++i) cluster.start(4, 1000, 2);
  const int64_t split = cluster.reserve(0);
  EXPECT_EQ(cluster.reserve(1), split);
  Cluster local;
  local.learn(3200, 1000);
  for (int i = 0; i < 8; ++i) local.start(4, 1000, 1);
  EXPECT_NEAR(static_cast<double>(local.reserve(0)), 2.0 * static_cast<double>(split), 10.0);
}

TEST(GrowthForecast, LongOutputsThatGoOnAreExpectedToGoOn) {
  Cluster cluster;
  cluster.learn(100, 500);
  Entry& entry = cluster.start(10, 10'000);
  const int64_t before = cluster.reserve(0);
  cluster.write(entry, 5000);
  EXPECT_GT(cluster.reserve(0), 3 * before);
}

TEST(GrowthForecast, RoomIsWhatFits) {
  Cluster cluster;
  for (int length = 50; length <= 500; length += 50) cluster.learn(length, 50);
  for (int i = 0; i < 30; ++i) cluster.write(cluster.start(4 + i, 1000), 10 * i);
  const Newcomers others = {
      .group = {.num_sequences = 2, .num_blocks = 9, .num_parts = 2 * GrowthForecast::kParts},
      .most_growth = 80 * GrowthForecast::kParts};
  for (const int64_t num_free : {300, 400, 600}) {
    const int64_t room = cluster.forecast.room(0, num_free, others, 40);
    ASSERT_GT(room, 0);
    ASSERT_LT(room, num_free);
    // The newcomer's own chance is not in `room`: what fits is near it.
    const auto fits = [&](int64_t num_blocks) {
      Newcomers all = others;
      ++all.group.num_sequences;
      all.group.num_blocks += static_cast<int32_t>(num_blocks);
      all.group.num_parts += GrowthForecast::kParts;
      all.most_growth += 40 * GrowthForecast::kParts;
      return cluster.forecast.fits(0, num_free - num_blocks, all);
    };
    EXPECT_TRUE(fits(room * 3 / 4)) << num_free;
    EXPECT_FALSE(fits(room + 10)) << num_free;
  }
}

TEST(GrowthForecast, WhatLeavesIsForgotten) {
  Cluster cluster;
  cluster.learn(400, 100);
  std::vector<Entry*> entries;
  for (int i = 0; i < 20; ++i) entries.push_back(&cluster.start(3, 500, i % 2 + 1));
  EXPECT_GT(cluster.reserve(0), 0);
  cluster.forecast.check_integrity({entries.begin(), entries.end()});
  for (Entry* entry : entries) cluster.end(*entry);
  EXPECT_EQ(cluster.reserve(0), 0);
  cluster.forecast.check_integrity({});
}

TEST(GrowthForecastDeathTest, IntegrityFindsALostSequence) {
  Cluster cluster;
  cluster.start(3, 500);
  EXPECT_DEATH(cluster.forecast.check_integrity({}), "check failed");
}

}  // namespace
}  // namespace nanocp::scheduler
