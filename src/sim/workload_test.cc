#include "sim/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

namespace nanocp::sim {
namespace {

LengthDistribution lengths(std::string_view text) {
  auto parsed = LengthDistribution::parse(text);
  EXPECT_TRUE(parsed.ok()) << parsed.error().message;
  return std::move(parsed).value();
}

std::vector<int64_t> draw(const LengthDistribution& distribution, int count) {
  Random random(7);
  std::vector<int64_t> drawn;
  for (int i = 0; i < count; ++i) drawn.push_back(distribution.draw(random));
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

TEST(LengthDistribution, DrawsWhatItSays) {
  EXPECT_EQ(draw(lengths("4k"), 3), (std::vector<int64_t>{4000, 4000, 4000}));
  const auto uniform = draw(lengths("uniform(100,200)"), 2000);
  EXPECT_GE(uniform.front(), 100);
  EXPECT_LE(uniform.back(), 200);
  EXPECT_NEAR(static_cast<double>(uniform[1000]), 150.0, 4.0);
  const auto log_uniform = draw(lengths("loguniform(1k,16k)"), 2000);
  EXPECT_NEAR(static_cast<double>(log_uniform[1000]), 4000.0, 250.0);
  const auto log_normal = draw(lengths("lognormal(1k,4k)"), 4000);
  EXPECT_NEAR(static_cast<double>(log_normal[200]), 1000.0, 60.0);
  EXPECT_NEAR(static_cast<double>(log_normal[3800]), 4000.0, 240.0);
  const auto normal = draw(lengths("normal(600,170,1,700)"), 2000);
  EXPECT_EQ(normal.back(), 700);
  EXPECT_NEAR(static_cast<double>(normal[1000]), 600.0, 15.0);
  const auto quantiles = draw(lengths("quantiles(0:100k,50%:300k,100%:900k)"), 2000);
  EXPECT_NEAR(static_cast<double>(quantiles[1000]), 300e3, 12e3);
  EXPECT_GE(quantiles.front(), 100'000);
}

TEST(LengthDistribution, MixturesKeepTheirShares) {
  const auto drawn = draw(lengths("90% 10 + 10% uniform(1000,2000)"), 4000);
  const auto num_short = std::count(drawn.begin(), drawn.end(), 10);
  EXPECT_NEAR(static_cast<double>(num_short), 3600.0, 80.0);
  EXPECT_EQ(lengths("90% 10 + 10% uniform(1000,2000)").max(), 2000);
}

TEST(LengthDistribution, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> kCases[] = {
      {"", "not a number"},
      {"-5", "above 0"},
      {"uniform(1)", "two lengths"},
      {"uniform(9,2)", "first limit"},
      {"zipf(1,2)", "is none of"},
      {"uniform(1,2", "parenthesis"},
      {"50% 10 + 10% 20", "sum up"},
      {"10 + 20", "its share"},
      {"quantiles(0:1k,50%:2k)", "end at 100 %"},
      {"quantiles(0:9k,100%:2k)", "must rise"},
      {"1e30", "at most"},
  };
  for (const auto& [text, what] : kCases) {
    const auto parsed = LengthDistribution::parse(text);
    ASSERT_FALSE(parsed.ok()) << text;
    EXPECT_NE(parsed.error().message.find(what), std::string::npos) << parsed.error().message;
  }
}

TEST(Workload, IssueRecipeHasItsShareOfLongPrompts) {
  const auto mixture = LengthMixture::parse("issue(5)");
  ASSERT_TRUE(mixture.ok()) << mixture.error().message;
  Random random(3);
  int num_long = 0;
  for (int i = 0; i < 20'000; ++i) {
    const Arrival arrival = mixture->draw(random);
    EXPECT_GE(arrival.num_output_tokens, 1);
    EXPECT_LE(arrival.num_output_tokens, 1600);
    num_long += arrival.num_prompt_tokens >= 100'000 ? 1 : 0;
  }
  EXPECT_NEAR(num_long, 1000, 100);
  EXPECT_EQ(mixture->max_prompt_tokens(), 995'000);
}

TEST(Workload, RatesAndBurstsAreAsAsked) {
  const auto mixture = LengthMixture::parse("100 -> 10");
  for (const double cv : {0.5, 1.0, 3.0}) {
    const LoadOptions options = {
        .process = ArrivalProcess::kGamma, .cv = cv, .rate_per_s = 20.0, .duration_s = 1000.0};
    const auto arrivals = draw_load(*mixture, options, Random(5));
    EXPECT_NEAR(static_cast<double>(arrivals.size()), 20'000.0, 500.0 * cv);
    double sum = 0.0;
    double squares = 0.0;
    for (size_t i = 1; i < arrivals.size(); ++i) {
      const auto gap = static_cast<double>(arrivals[i].time_us - arrivals[i - 1].time_us);
      ASSERT_GE(gap, 0.0);
      sum += gap;
      squares += gap * gap;
    }
    const auto count = static_cast<double>(arrivals.size() - 1);
    const double mean = sum / count;
    EXPECT_NEAR(std::sqrt(squares / count - mean * mean) / mean, cv, 0.15 * cv);
  }
}

TEST(Workload, ConstantGapsAreEqualAndRequestsAreCounted) {
  const auto mixture = LengthMixture::parse("10 -> 10");
  ASSERT_TRUE(mixture.ok());
  const auto arrivals = draw_load(
      *mixture, {.process = arrival_process("constant"), .rate_per_s = 4.0, .num_requests_max = 7},
      Random(1));
  ASSERT_EQ(arrivals.size(), 7U);
  for (size_t i = 0; i < arrivals.size(); ++i) {
    EXPECT_EQ(arrivals[i].time_us, static_cast<int64_t>(i + 1) * 250'000);
  }
}

TEST(Workload, ATraceHasARateOfItsOwn) {
  const auto trace = parse_trace("a,b,c\n10,1,1\n10.5,1,1\n11,1,1\n", "t");
  ASSERT_TRUE(trace.ok());
  const double rate = native_rate_per_s(*trace);
  EXPECT_DOUBLE_EQ(rate, 2.0);
  const auto arrivals = replay_load(
      *trace, {.process = ArrivalProcess::kTrace, .rate_per_s = rate, .num_requests_max = 4},
      Random(1));
  ASSERT_EQ(arrivals.size(), 4U);
  EXPECT_EQ(arrivals[2].time_us, 1'000'000);
  EXPECT_EQ(arrivals[3].time_us, 1'500'000);
}

TEST(Workload, AnotherRateDrawsTheSameLengths) {
  const auto mixture = LengthMixture::parse("uniform(1,1000) -> uniform(1,100)");
  const auto slow = draw_load(*mixture, {.rate_per_s = 1.0, .duration_s = 100.0}, Random(9));
  const auto quick = draw_load(*mixture, {.rate_per_s = 4.0, .duration_s = 100.0}, Random(9));
  ASSERT_LT(slow.size(), quick.size());
  for (size_t i = 0; i < slow.size(); ++i) {
    EXPECT_EQ(slow[i].num_prompt_tokens, quick[i].num_prompt_tokens);
    EXPECT_EQ(slow[i].num_output_tokens, quick[i].num_output_tokens);
  }
}

TEST(Workload, TracesAreReadAndReplayed) {
  const auto trace = parse_trace(
      "arrival_s,input_tokens,output_tokens\n0.5,10,1\n1.5,20,2\r\n2.5,30,0\n", "t.csv");
  ASSERT_TRUE(trace.ok()) << trace.error().message;
  ASSERT_EQ(trace->size(), 3U);
  EXPECT_EQ(trace->at(1).time_us, 1'500'000);
  EXPECT_EQ(trace->at(2).num_output_tokens, 1);
  const auto load = replay_load(
      *trace, {.process = ArrivalProcess::kTrace, .rate_per_s = 10.0, .duration_s = 1.0},
      Random(1));
  ASSERT_EQ(load.size(), 10U);
  EXPECT_EQ(load[3].time_us, 300'000);
  EXPECT_EQ(load[4].num_prompt_tokens, 20);
  std::array<int, 3> num_starts = {};
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto rotated = replay_load(*trace,
                                     {.process = ArrivalProcess::kTrace,
                                      .rate_per_s = 10.0,
                                      .duration_s = 1.0,
                                      .is_rotated = true},
                                     Random(seed));
    ASSERT_GE(rotated.size(), 10U);
    EXPECT_EQ(rotated[0].time_us, 0);
    EXPECT_EQ(rotated[4].time_us, 400'000);
    ++num_starts[static_cast<size_t>(rotated[0].num_prompt_tokens / 10 - 1)];
  }
  for (const int count : num_starts) EXPECT_GT(count, 2);
  for (const char* bad : {"a,b,c\n1,2\n", "a,b,c\n1,x,3\n", "a,b,c\n5,1,1\n4,1,1\n", "a,b,c\n",
                          "a,b,c\n-1,1,1\n", "a,b,c\n1,1e12,1\n"}) {
    EXPECT_FALSE(parse_trace(bad, "t.csv").ok()) << bad;
  }
}

}  // namespace
}  // namespace nanocp::sim
