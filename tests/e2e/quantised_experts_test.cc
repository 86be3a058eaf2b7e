// The quantiser of the tests, so that what is compared on GPUs is what it says.
#include "e2e/quantised_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "ops/linear.h"

namespace nanocp::e2e {
namespace {

using tensor::WeightFormat;
using tensor::WeightView;

// The largest |value| of the block of w that (r, c) is in.
float block_max(const WeightView& w, int64_t r, int64_t c, int64_t rows, int64_t cols) {
  float largest = 0.0F;
  for (int64_t i = r / rows * rows; i < std::min(w.rows, (r / rows + 1) * rows); ++i) {
    for (int64_t j = c / cols * cols; j < std::min(w.cols, (c / cols + 1) * cols); ++j) {
      largest = std::max(largest, std::abs(ops::weight_element(w, i, j)));
    }
  }
  return largest;
}

TEST(QuantisedExperts, ValuesAreTheNearestOfTheFormat) {
  const TestModel model = load_test_model(fixture_dir("qwen3_moe"), "config.json");
  const TestModel fp8 = quantise_experts(model, WeightFormat::kFp8Block);
  const TestModel mxfp4 = quantise_experts(model, WeightFormat::kMxfp4);
  const model::GatedMlpWeights& plain = model.weights->layers[1].experts[2];
  const auto check = [](const WeightView& w, const WeightView& in_fp8, const WeightView& in_fp4) {
    ASSERT_EQ(in_fp8.format, WeightFormat::kFp8Block);
    ASSERT_EQ(in_fp4.format, WeightFormat::kMxfp4);
    for (int64_t r = 0; r < w.rows; r += 3) {
      for (int64_t c = 0; c < w.cols; c += 5) {
        const float value = ops::weight_element(w, r, c);
        // Half a step of three fraction bits, or of the subnormal numbers.
        const float fp8_step =
            std::max(std::abs(value) / 8.0F, block_max(w, r, c, 128, 128) / 448.0F * 0x1p-9F);
        EXPECT_NEAR(ops::weight_element(in_fp8, r, c), value, fp8_step / 2 * 1.0001F);
        // Half a step of one fraction bit, or what is above the largest value, 6 for up to 8.
        const float group_max = block_max(w, r, c, 1, 32);
        const float fp4_step =
            std::max({std::abs(value) / 2.0F, group_max / 8.0F,
                      std::abs(value) > group_max * 0.75F ? group_max / 2.0F : 0.0F});
        EXPECT_NEAR(ops::weight_element(in_fp4, r, c), value, fp4_step / 2 * 1.0001F);
      }
    }
  };
  const model::GatedMlpWeights& a = fp8.weights->layers[1].experts[2];
  const model::GatedMlpWeights& b = mxfp4.weights->layers[1].experts[2];
  check(plain.gate.weight, a.gate.weight, b.gate.weight);
  check(plain.up.weight, a.up.weight, b.up.weight);
  check(plain.down.weight, a.down.weight, b.down.weight);
}

TEST(QuantisedExperts, LogitsMoveALittleAndDoMove) {
  const TestModel model = load_test_model(fixture_dir("qwen3_moe"), "config.json");
  for (const auto& [format, most] :
       {std::pair(WeightFormat::kFp8Block, 0.2), {WeightFormat::kMxfp4, 0.8}}) {
    const std::vector<GoldenCase> cases = cpu_cases(quantise_experts(model, format));
    ASSERT_EQ(cases.size(), model.cases.size());
    std::vector<double> errors;
    for (size_t i = 0; i < cases.size(); ++i) {
      errors.push_back(relative_error(cases[i].last_logits, model.cases[i].last_logits));
    }
    std::sort(errors.begin(), errors.end());
    EXPECT_GT(errors[errors.size() / 2], 1e-3);
    EXPECT_LT(errors[errors.size() / 2], most);
  }
}

}  // namespace
}  // namespace nanocp::e2e
