#include "e2e/quantised_experts.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "e2e/test_policies.h"
#include "ops/linear.h"

namespace nanocp::e2e {
namespace {

using model::GatedMlpWeights;
using tensor::WeightFormat;
using tensor::WeightView;

constexpr int64_t kBlock = 128;
constexpr float kE4m3Max = 448.0F;
constexpr int kE8m0Bias = 127;
constexpr int kE2m1ExponentMax = 2;  // of its largest value, 6
constexpr std::array<float, 8> kE2m1 = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};

// The bytes of one expert's matrices and the scales beside them.
struct Storage {
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<uint8_t> group_scales;
};

float e4m3_value(int code) {
  const int exponent = code >> 3;
  const auto fraction = static_cast<float>(code & 7);
  return exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(fraction + 8.0F, exponent - 10);
}

// The index of the nearest of ascending values; of two that are as near, the even one.
template <size_t kCount>
uint8_t nearest(const std::array<float, kCount>& values, float x) {
  const auto above = std::lower_bound(values.begin(), values.end(), x) - values.begin();
  if (above == 0) return 0;
  if (above == static_cast<int64_t>(kCount)) return kCount - 1;
  const auto at = static_cast<size_t>(above);
  const float down = x - values[at - 1];
  const float up = values[at] - x;
  const bool takes_upper = up < down || (up == down && at % 2 == 0);
  return static_cast<uint8_t>(takes_upper ? at : at - 1);
}

uint8_t to_e4m3(float x) {
  static const auto values = [] {
    std::array<float, 127> table{};
    for (size_t i = 0; i < table.size(); ++i) table[i] = e4m3_value(static_cast<int>(i));
    return table;
  }();
  return static_cast<uint8_t>(nearest(values, std::abs(x)) | (std::signbit(x) ? 0x80 : 0));
}

uint8_t to_e2m1(float x) {
  return static_cast<uint8_t>(nearest(kE2m1, std::abs(x)) | (std::signbit(x) ? 8 : 0));
}

float largest_in(const WeightView& w, int64_t row_begin, int64_t row_end, int64_t col_begin,
                 int64_t col_end) {
  float largest = 0.0F;
  for (int64_t r = row_begin; r < row_end; ++r) {
    for (int64_t c = col_begin; c < col_end; ++c) {
      largest = std::max(largest, std::abs(ops::weight_element(w, r, c)));
    }
  }
  return largest;
}

WeightView quantise_fp8(const WeightView& w, Storage& storage) {
  WeightView view;
  view.format = WeightFormat::kFp8Block;
  view.rows = w.rows;
  view.cols = w.cols;
  view.stride_bytes = w.cols;
  view.block_rows = kBlock;
  view.block_cols = kBlock;
  view.scale_stride = (w.cols + kBlock - 1) / kBlock;
  storage.data.resize(static_cast<size_t>(w.rows * w.cols));
  for (int64_t row = 0; row < w.rows; row += kBlock) {
    for (int64_t col = 0; col < w.cols; col += kBlock) {
      const int64_t row_end = std::min(w.rows, row + kBlock);
      const int64_t col_end = std::min(w.cols, col + kBlock);
      const float scale = largest_in(w, row, row_end, col, col_end) / kE4m3Max;
      storage.scales.push_back(scale);
      for (int64_t r = row; r < row_end; ++r) {
        for (int64_t c = col; c < col_end; ++c) {
          storage.data[static_cast<size_t>(r * w.cols + c)] =
              to_e4m3(scale == 0.0F ? 0.0F : ops::weight_element(w, r, c) / scale);
        }
      }
    }
  }
  view.data = storage.data.data();
  view.scales = storage.scales.data();
  return view;
}

// Row `row` of the storage := the values of row `from` of w.
void quantise_mxfp4_row(const WeightView& w, int64_t from, int64_t row, Storage& storage) {
  const int64_t groups = w.cols / tensor::kMxfp4GroupSize;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t begin = g * tensor::kMxfp4GroupSize;
    const float largest = largest_in(w, from, from + 1, begin, begin + tensor::kMxfp4GroupSize);
    const int exponent = largest == 0.0F ? 0 : std::ilogb(largest) - kE2m1ExponentMax;
    storage.group_scales[static_cast<size_t>(row * groups + g)] =
        static_cast<uint8_t>(kE8m0Bias + exponent);
    for (int64_t c = begin; c < begin + tensor::kMxfp4GroupSize; c += 2) {
      const uint8_t low = to_e2m1(std::ldexp(ops::weight_element(w, from, c), -exponent));
      const uint8_t high = to_e2m1(std::ldexp(ops::weight_element(w, from, c + 1), -exponent));
      storage.data[static_cast<size_t>((row * w.cols + c) / 2)] =
          static_cast<uint8_t>(low | high << 4);
    }
  }
}

// Matrices of equal shape whose rows are stored by turns; a view of each.
std::vector<WeightView> quantise_mxfp4(std::span<const WeightView> matrices, Storage& storage) {
  const auto count = static_cast<int64_t>(matrices.size());
  const int64_t rows = matrices[0].rows;
  const int64_t cols = matrices[0].cols;
  const int64_t groups = cols / tensor::kMxfp4GroupSize;
  storage.data.resize(static_cast<size_t>(count * rows * cols / 2));
  storage.group_scales.resize(static_cast<size_t>(count * rows * groups));
  std::vector<WeightView> views;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t r = 0; r < rows; ++r) {
      quantise_mxfp4_row(matrices[static_cast<size_t>(i)], r, r * count + i, storage);
    }
    WeightView view;
    view.format = WeightFormat::kMxfp4;
    view.data = storage.data.data() + i * cols / 2;
    view.rows = rows;
    view.cols = cols;
    view.stride_bytes = count * cols / 2;
    view.group_scales = storage.group_scales.data() + i * groups;
    view.group_scale_stride = count * groups;
    views.push_back(view);
  }
  return views;
}

void quantise_expert(WeightFormat format, GatedMlpWeights& expert, model::ModelWeights& weights) {
  const auto make_storage = [&] {
    auto storage = std::make_shared<Storage>();
    weights.owned.push_back(storage);
    return storage;
  };
  if (format == WeightFormat::kFp8Block) {
    for (model::LinearWeights* linear : {&expert.gate, &expert.up, &expert.down}) {
      linear->weight = quantise_fp8(linear->weight, *make_storage());
    }
    return;
  }
  const std::array<WeightView, 2> both = {expert.gate.weight, expert.up.weight};
  const auto gate_up = quantise_mxfp4(both, *make_storage());
  expert.gate.weight = gate_up[0];
  expert.up.weight = gate_up[1];
  expert.down.weight =
      quantise_mxfp4(std::span<const WeightView>(&expert.down.weight, 1), *make_storage())[0];
}

}  // namespace

TestModel quantise_experts(const TestModel& model, WeightFormat format) {
  const bool is_fp8 = format == WeightFormat::kFp8Block;
  NANOCP_CHECK(is_fp8 || format == WeightFormat::kMxfp4);
  TestModel result = model;
  result.name += std::string("_") + tensor::to_string(format);
  auto spec = std::make_shared<model::ModelSpec>(*model.spec);
  spec->quantization.kind = is_fp8 ? model::Quantization::kFp8Block : model::Quantization::kMxfp4;
  result.spec = std::move(spec);
  auto weights = std::make_shared<model::ModelWeights>(*model.weights);
  for (model::LayerWeights& layer : weights->layers) {
    for (GatedMlpWeights& expert : layer.experts) quantise_expert(format, expert, *weights);
  }
  result.weights = std::move(weights);
  return result;
}

std::vector<GoldenCase> cpu_cases(const TestModel& model) {
  std::vector<GoldenCase> cases = model.cases;
  std::vector<request::Request> requests;
  for (const GoldenCase& one : cases) {
    requests.push_back(greedy_request(one.prompt, static_cast<int>(one.greedy.size()) + 1));
  }
  const auto outputs = run_requests(model, {}, make_uneven_policy(1), requests);
  EXPECT_TRUE(outputs.ok()) << outputs.error().message;
  if (!outputs.ok()) return {};
  for (size_t i = 0; i < cases.size(); ++i) {
    const RunOutput& output = (*outputs)[i];
    cases[i].last_logits = output.logits.front();
    cases[i].logits_after = output.logits.back();
    cases[i].greedy.assign(output.tokens.begin(), output.tokens.end() - 1);
    cases[i].top2_margin.clear();
    for (std::vector<float> logits : output.logits) {
      std::partial_sort(logits.begin(), logits.begin() + 2, logits.end(), std::greater<>());
      cases[i].top2_margin.push_back(logits[0] - logits[1]);
    }
  }
  return cases;
}

}  // namespace nanocp::e2e
