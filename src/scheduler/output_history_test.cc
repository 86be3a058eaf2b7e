#include "scheduler/output_history.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "base/random.h"

namespace nanocp::scheduler {
namespace {

void add(OutputHistory& history, int64_t num_outputs) {
  history.reach(-1, output_class(num_outputs));
  history.end(output_class(num_outputs));
}

double share(const OutputHistory& history, double num_outputs) {
  return share_reaching(history.shares_reaching(), num_outputs);
}

TEST(OutputHistory, ClassesFollowEachOther) {
  EXPECT_EQ(output_class(-3), 0);
  for (int32_t i = 0; i < kNumOutputClasses; ++i) {
    const int64_t begin = output_class_begin(i);
    const int64_t end = output_class_begin(i + 1);
    ASSERT_LT(begin, end);
    ASSERT_LE(end - begin, std::max<int64_t>(1, begin / 4));
    ASSERT_EQ(output_class(begin), i);
    ASSERT_EQ(output_class(end - 1), i);
  }
  EXPECT_EQ(output_class(int64_t{1} << 40), kNumOutputClasses - 1);
}

TEST(OutputHistory, TakesAGuessAtFirst) {
  const OutputHistory history;
  EXPECT_DOUBLE_EQ(share(history, 0), 1.0);
  EXPECT_DOUBLE_EQ(share(history, 512), 0.5);
  EXPECT_DOUBLE_EQ(share(history, 1536), 0.25);
}

TEST(OutputHistory, LearnsLengths) {
  OutputHistory history;
  Random random(3);
  for (int i = 0; i < 1500; ++i) add(history, random.between(200, 1000));
  EXPECT_NEAR(share(history, 200), 1.0, 0.01);
  EXPECT_NEAR(share(history, 400), 0.75, 0.03);
  EXPECT_NEAR(share(history, 800), 0.25, 0.03);
  EXPECT_LT(share(history, 1100), 0.01);
  EXPECT_GT(share(history, 1e9), 0.0);
}

// All begin at once, and a third of the time is over: those that have ended are the short ones.
TEST(OutputHistory, ShortOutputsThatEndFirstDoNotPassForAll) {
  OutputHistory history;
  Random random(5);
  constexpr int64_t kNow = 400;
  for (int i = 0; i < 1500; ++i) {
    const int64_t length = random.between(1, 1200);
    history.reach(-1, output_class(std::min(length, kNow)));
    if (length < kNow) history.end(output_class(length));
  }
  EXPECT_NEAR(share(history, 200), 1000.0 / 1200.0, 0.02);
  EXPECT_NEAR(share(history, 380), 820.0 / 1200.0, 0.04);
  EXPECT_GT(share(history, 1000), 0.2);
}

TEST(OutputHistory, SharesFallWithTheLength) {
  OutputHistory history;
  Random random(4);
  for (int i = 0; i < 5000; ++i) add(history, random.between(1, random.between(1, 300'000)));
  const OutputHistory::Shares shares = history.shares_reaching();
  double last = 1.0;
  for (double n = 0; n < 400'000; n = n * 1.01 + 0.5) {
    ASSERT_LE(share_reaching(shares, n), last) << n;
    ASSERT_GT(share_reaching(shares, n), 0.0) << n;
    last = share_reaching(shares, n);
  }
}

TEST(OutputHistory, FollowsALoadThatChanges) {
  OutputHistory history;
  for (int i = 0; i < 100'000; ++i) add(history, 2000);
  EXPECT_GT(share(history, 1700), 0.9);
  for (int i = 0; i < 20'000; ++i) add(history, 20);
  EXPECT_LT(share(history, 1700), 0.02);
  EXPECT_EQ(history.num_ended(), 120'000);
}

// Counts are halved while many are between reaching a class and ending in it.
TEST(OutputHistory, SharesStayAboveZeroWhateverTheOrder) {
  OutputHistory history;
  for (int i = 0; i < 3000; ++i) history.reach(-1, 10);
  for (int i = 0; i < 3000; ++i) history.end(10);
  const OutputHistory::Shares shares = history.shares_reaching();
  for (const double share : shares) {
    EXPECT_GT(share, 0.0);
    EXPECT_LE(share, 1.0);
  }
}

}  // namespace
}  // namespace nanocp::scheduler
