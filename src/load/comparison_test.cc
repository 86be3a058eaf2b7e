#include "load/comparison.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/random.h"

namespace nanocp::load {
namespace {

// Requests whose TTFT wanders: neighbours are alike, as they are in a queue.
RunSamples wandering_run(uint64_t seed, double scale, size_t count = 400) {
  Random random(seed);
  RunSamples run{.requests = {}, .window_s = 100.0};
  double level = 0.0;
  for (size_t i = 0; i < count; ++i) {
    level = 0.6 * level + random.uniform() - 0.5;
    const double ttft_us = scale * 100'000.0 * std::exp(level);
    run.requests.push_back({.gap_us = 500'000.0 * random.uniform(),
                            .ttft_us = ttft_us,
                            .tpot_us = 20'000.0 + 1000.0 * random.uniform(),
                            .e2e_us = ttft_us + 2e6,
                            .num_output_tokens = 100,
                            .is_finished = true,
                            .is_good = ttft_us < 150'000.0});
  }
  return run;
}

const Difference& find(const Comparison& comparison, const std::string& metric) {
  for (const Difference& difference : comparison.differences) {
    if (difference.metric == metric) return difference;
  }
  ADD_FAILURE() << metric;
  return comparison.differences.front();
}

TEST(Comparison, EqualServersAreWithinNoiseAboutAsOftenAsPromised) {
  int num_outside = 0;
  const int num_pairs = 20;
  for (uint64_t seed = 0; seed < num_pairs; ++seed) {
    const Comparison comparison =
        compare_runs({wandering_run(2 * seed, 1.0, 200)}, {wandering_run(2 * seed + 1, 1.0, 200)});
    EXPECT_EQ(comparison.noise, Noise::kWithinRuns);
    if (find(comparison, "TTFT mean").verdict != Verdict::kWithinNoise) ++num_outside;
  }
  // 5 % would be 1; blocks catch most of the dependence, not all of it.
  EXPECT_LE(num_outside, 5) << "of " << num_pairs;
}

TEST(Comparison, ADifferenceIsFoundAndHasItsDirection) {
  const Comparison comparison = compare_runs({wandering_run(1, 1.0)}, {wandering_run(2, 0.5)});
  const Difference& ttft = find(comparison, "TTFT mean");
  EXPECT_EQ(ttft.verdict, Verdict::kBetter);
  EXPECT_NEAR(ttft.change, -0.5, 0.1);
  EXPECT_LT(ttft.low, ttft.change);
  EXPECT_GT(ttft.high, ttft.change);
  EXPECT_EQ(find(comparison, "goodput").verdict, Verdict::kBetter);
  EXPECT_EQ(find(comparison, "TPOT P50").verdict, Verdict::kWithinNoise);
  const Difference& rate = find(comparison, "requests/s");
  EXPECT_EQ(rate.change, 0.0);
  // Gaps deviate by 0.577 of their mean, the span of 400 by 2.9 %, a ratio of two by 4.1 %.
  EXPECT_NEAR(rate.high - rate.low, 2 * 1.96 * 1.414 * 0.577 / 20.0, 0.05);
  const Comparison reverse = compare_runs({wandering_run(2, 0.5)}, {wandering_run(1, 1.0)});
  EXPECT_EQ(find(reverse, "TTFT mean").verdict, Verdict::kWorse);
  EXPECT_EQ(find(reverse, "goodput").verdict, Verdict::kWorse);
}

// Values of one number each; the interval is that of Welch's test, computed by hand.
TEST(Comparison, SeveralRunsAreTheirOwnMeasureOfNoise) {
  const auto run = [](double ttft_us) {
    RunSamples one{.requests = {}, .window_s = 1.0};
    one.requests.assign(30, {.ttft_us = ttft_us, .e2e_us = ttft_us, .is_finished = true});
    return one;
  };
  const Comparison comparison =
      compare_runs({run(90e3), run(100e3), run(110e3)}, {run(114e3), run(120e3), run(126e3)});
  EXPECT_EQ(comparison.noise, Noise::kBetweenRuns);
  const Difference& ttft = find(comparison, "TTFT P50");
  EXPECT_DOUBLE_EQ(ttft.a, 100.0);
  EXPECT_NEAR(ttft.change, 0.2, 1e-12);
  // Variances of the means 100/3 and 36/3; 3.27 degrees, taken as 3: t = 3.182.
  EXPECT_NEAR(ttft.high - ttft.change, 3.182 * std::sqrt(136.0 / 3.0) / 100.0, 1e-3);
  EXPECT_EQ(ttft.verdict, Verdict::kWithinNoise);
}

TEST(Comparison, FewRequestsAreNotEnoughToSay) {
  const Comparison comparison =
      compare_runs({wandering_run(1, 1.0, 10)}, {wandering_run(2, 0.1, 10)});
  EXPECT_EQ(find(comparison, "TTFT mean").verdict, Verdict::kUnknown);
}

}  // namespace
}  // namespace nanocp::load
