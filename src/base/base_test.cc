#include <gtest/gtest.h>

#include <atomic>
#include <set>

#include "base/clock.h"
#include "base/random.h"
#include "base/result.h"
#include "base/thread_pool.h"

namespace nanocp {
namespace {

TEST(ThreadPool, CoversTheRangeOnce) {
  for (int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    for (int64_t count : {0, 1, 3, 64, 1000}) {
      for (int64_t grain : {1, 7, 100}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) visits[static_cast<size_t>(i)]++;
        });
        for (auto& visit : visits) ASSERT_EQ(visit.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, RunsManyShortLoops) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum = 0;
  for (int i = 0; i < 2000; ++i) {
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
  }
  EXPECT_EQ(sum.load(), 16000);
}

TEST(Random, IsReproducibleAndInRange) {
  Random a(7);
  Random b(7);
  std::set<uint64_t> values;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = a.below(10);
    EXPECT_EQ(value, b.below(10));
    EXPECT_LT(value, 10U);
    values.insert(value);
    const double u = a.uniform();
    EXPECT_EQ(u, b.uniform());
    EXPECT_GE(u, 0.0);
    EXPECT_LT(u, 1.0);
  }
  EXPECT_EQ(values.size(), 10U);
  EXPECT_NE(counter_random(1, 2), counter_random(2, 1));
}

Result<int> half(int value) {
  if (value % 2 != 0) return invalid_argument("odd: " + std::to_string(value));
  return value / 2;
}

Result<int> quarter(int value) {
  NANOCP_ASSIGN_OR_RETURN(const int once, half(value));
  return half(once);
}

TEST(Random, MultipliesHighExactly) {
  EXPECT_EQ(multiply_high(~0ULL, ~0ULL), ~0ULL - 1);
  EXPECT_EQ(multiply_high(1ULL << 63, 6), 3U);
  EXPECT_EQ(multiply_high(0x123456789abcdef0ULL, 0xfedcba9876543210ULL), 0x121fa00ad77d7422ULL);
}

TEST(Result, CarriesValueOrError) {
  EXPECT_EQ(quarter(12).value(), 3);
  EXPECT_EQ(quarter(6).error().message, "odd: 3");
  EXPECT_DEATH(static_cast<void>(quarter(6).value()), "odd: 3");
}

TEST(ManualClock, MovesOnlyWhenTold) {
  ManualClock clock;
  EXPECT_EQ(clock.now_us(), 0);
  clock.advance_us(5);
  EXPECT_EQ(clock.now_us(), 5);
}

}  // namespace
}  // namespace nanocp
