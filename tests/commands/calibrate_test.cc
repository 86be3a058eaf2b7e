// `nanocp calibrate` as a user runs it, and the fit that it rests on.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "../../apps/calibrate_fit.h"
#include "program.h"

namespace nanocp::tests {
namespace {

using apps::fit_costs;
using apps::FitPoint;
using apps::FitResult;
using apps::FitWeight;
using nlohmann::json;

double attention_us(double tokens, double rows) {
  return 6.5 + 0.0004 * tokens + 0.03 * rows;
}

std::vector<FitPoint> attention_points(double noise) {
  std::vector<FitPoint> points;
  int sign = 1;
  for (const double rows : {1.0, 8.0, 64.0, 256.0}) {
    for (const double context : {128.0, 1024.0, 8192.0, 65536.0}) {
      sign = -sign;
      const double tokens = rows * context;
      points.push_back({{1.0, tokens, rows}, attention_us(tokens, rows) * (1.0 + sign * noise)});
    }
  }
  return points;
}

TEST(CalibrateFit, RecoversKnownConstants) {
  for (const FitWeight weight : {FitWeight::kRelative, FitWeight::kAbsolute}) {
    const FitResult fit = fit_costs(attention_points(0.0), weight);
    ASSERT_TRUE(fit.is_determined);
    EXPECT_NEAR(fit.coefficients[0], 6.5, 1e-4);
    EXPECT_NEAR(fit.coefficients[1], 0.0004, 1e-9);
    EXPECT_NEAR(fit.coefficients[2], 0.03, 1e-5);
    EXPECT_LT(fit.relative_error, 1e-6);
  }
}

TEST(CalibrateFit, NoiseShowsInTheErrorAndLittleInTheConstants) {
  const FitResult fit = fit_costs(attention_points(0.05), FitWeight::kRelative);
  EXPECT_NEAR(fit.coefficients[0], 6.5, 1.0);
  EXPECT_NEAR(fit.coefficients[1], 0.0004, 0.00004);
  EXPECT_GT(fit.relative_error, 0.03);
  EXPECT_LT(fit.relative_error, 0.06);
}

TEST(CalibrateFit, CostsAreNeverNegative) {
  std::vector<FitPoint> points;
  for (const double rows : {1.0, 2.0, 3.0, 4.0}) points.push_back({{1.0, rows}, 3.0 * rows - 2.0});
  const FitResult fit = fit_costs(points, FitWeight::kAbsolute);
  EXPECT_TRUE(fit.is_determined);
  EXPECT_EQ(fit.coefficients[0], 0.0);
  // The best slope through the origin: sum of x y over sum of x x.
  EXPECT_NEAR(fit.coefficients[1], (1.0 + 8.0 + 21.0 + 40.0) / 30.0, 1e-9);
  EXPECT_GT(fit.relative_error, 0.0);
}

TEST(CalibrateFit, SaysWhenPointsCannotTellTermsApart) {
  const std::vector<FitPoint> points = {{{1.0, 8.0}, 20.0}, {{1.0, 8.0}, 20.0}};
  const FitResult fit = fit_costs(points, FitWeight::kRelative);
  EXPECT_FALSE(fit.is_determined);
  EXPECT_NEAR(fit.relative_error, 1.0, 1e-9);
}

std::vector<std::string> with(const std::vector<std::string>& more) {
  std::vector<std::string> arguments = {"calibrate",
                                        "--config",
                                        "tests/fixtures/qwen3_moe/config.json",
                                        "--load-format",
                                        "dummy",
                                        "--num-steps",
                                        "3",
                                        "--warmup",
                                        "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

TEST(Calibrate, WritesAProfileOfAllConstants) {
  const TempFolder folder;
  const std::string file = (folder.path() / "profiles" / "p.json").string();
  const ProgramResult result =
      run_program(with({"--instances", "2", "--rows", "1,4", "--tokens", "64,512,4096",
                        "--max-kv-tokens", "4096", "--output", file}));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json profile = json::parse(read_whole_file(file), nullptr, false);
  ASSERT_TRUE(profile.is_object());
  EXPECT_EQ(profile["device"], "CPU");
  EXPECT_EQ(profile["model"], "qwen3_moe");
  EXPECT_NE(profile["command"].get<std::string>().find("calibrate"), std::string::npos);
  for (const char* name :
       {"attention_fixed_us", "attention_us_per_kv_token", "attention_us_per_row", "route_fixed_us",
        "route_us_per_byte", "exchange_fixed_us", "exchange_us_per_row", "expert_fixed_us",
        "expert_us_per_touched_expert", "expert_us_per_row", "dense_fixed_us", "dense_us_per_row",
        "step_fixed_us"}) {
    ASSERT_TRUE(profile["constants"].contains(name)) << name;
    const json& constant = profile["constants"][name];
    EXPECT_GE(constant["value"].get<double>(), 0.0) << name;
    EXPECT_GE(constant["relative_error"].get<double>(), 0.0) << name;
    EXPECT_EQ(constant["source"], "measured");
    // Five runs (4 x 4096 is left out) on two instances.
    EXPECT_EQ(constant["num_points"], 10) << name;
  }
  EXPECT_GE(profile["timing_us_per_phase"].get<double>(), 0.0);
  ASSERT_EQ(profile["points"].size(), 20U);
  for (const json& point : profile["points"]) {
    EXPECT_EQ(point["route_bytes"].get<int64_t>() > 0, point["is_split"].get<bool>());
    EXPECT_GT(point["phase_us"]["attention"].get<double>(), 0.0);
    EXPECT_GT(point["plain_step_us"].get<double>(), 0.0);
  }
}

TEST(Calibrate, ErrorsAreOneLine) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {{"--rows", "8", "--tokens", "1000", "--max-kv-tokens", "100"}, "fits --max-kv-tokens"},
      {{"--rows", "0"}, "--rows"},
      {{"--rows", "2", "--tokens", "4000", "--num-kv-blocks", "300"}, "do not all fit at once"},
  };
  for (const auto& [arguments, words] : cases) {
    const ProgramResult result = run_program(with(arguments));
    EXPECT_EQ(result.exit_code, 1) << words;
    EXPECT_NE(result.err.find(words), std::string::npos) << words << "\n" << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
  }
}

}  // namespace
}  // namespace nanocp::tests
