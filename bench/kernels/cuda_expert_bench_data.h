// What cuda_expert_bench.cu works on: random choices of a router with the plan that comes of them,
// and random experts in all weight formats with their values.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "backend/cuda/expert_mlp.h"
#include "backend/cuda/expert_plan.h"
#include "base/random.h"
#include "bench/kernels/cuda_bench.h"
#include "ops/activation.h"
#include "tensor/weight.h"

namespace nanocp {
namespace {

void expect_ok(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  std::exit(1);
}

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(std::max<size_t>(1, count)) {
    CHECK_CUDA(cudaMalloc(&data_, bytes()));
    CHECK_CUDA(cudaMemset(data_, 0xff, bytes()));  // NaN: every value must be written
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    CHECK_CUDA(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return data_; }
  size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> to_host() const {
    std::vector<T> values(count_);
    CHECK_CUDA(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

// --- the router's choices and the plan

enum class Routing { kRandom, kFirstIsOne, kFewExperts };

struct Case {
  int hidden, intermediate, num_experts, begin, owned, topk;
  std::vector<int> rows;  // of each source
  Routing routing = Routing::kRandom;
  ops::Activation activation = ops::Activation::kSwiglu;
  bool has_bias = false;
  tensor::WeightFormat format = tensor::WeightFormat::kBf16;
};

// Different experts for every choice of a row.
std::vector<int32_t> choose_experts(const Case& c, int max_rows, Random& random) {
  std::vector<int32_t> topk_idx(c.rows.size() * static_cast<size_t>(max_rows * c.topk), 1 << 30);
  std::vector<int32_t> experts(static_cast<size_t>(c.num_experts));
  for (size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<int32_t>(i);
  for (size_t source = 0; source < c.rows.size(); ++source) {
    for (int row = 0; row < c.rows[source]; ++row) {
      for (int k = 0; k < c.topk; ++k) {
        const auto at = static_cast<size_t>(k);
        uint64_t from = experts.size() - at;
        if (c.routing == Routing::kFewExperts) from = std::min<uint64_t>(from, 3);
        std::swap(experts[at], experts[at + random.below(from)]);
      }
      if (c.routing == Routing::kFirstIsOne) {
        const auto one = std::find(experts.begin(), experts.end(), c.begin + c.owned / 2);
        std::iter_swap(experts.begin(), one);
      }
      const size_t to = (source * static_cast<size_t>(max_rows) + static_cast<size_t>(row)) *
                        static_cast<size_t>(c.topk);
      std::copy_n(experts.begin(), c.topk, topk_idx.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }
  return topk_idx;
}

// A heap with what the plan reads, and the lists that it fills.
class Plan {
 public:
  Plan(const Case& c, int max_rows, int32_t tile_rows, const std::vector<int32_t>& topk_idx)
      : topk_idx_(topk_idx) {
    const auto sources = static_cast<int32_t>(c.rows.size());
    // Two parities of each.
    const size_t counts_at = 2 * topk_idx.size() * sizeof(cuda::ExpertChoice);
    const size_t flags_at = counts_at + 2 * c.rows.size() * sizeof(cuda::RowCount);
    std::vector<uint8_t> heap(flags_at + cuda::kNumFlagKinds * c.rows.size() * 8);
    auto* choices = reinterpret_cast<cuda::ExpertChoice*>(heap.data()) + topk_idx.size();
    for (size_t i = 0; i < topk_idx.size(); ++i) choices[i] = {topk_idx[i], 1.0F, kEpoch};
    auto* counts = reinterpret_cast<cuda::RowCount*>(heap.data() + counts_at) + c.rows.size();
    for (size_t i = 0; i < c.rows.size(); ++i) counts[i] = {c.rows[i], 0, kEpoch};
    const std::vector<uint64_t> flags(cuda::kNumFlagKinds * c.rows.size(), kEpoch);
    std::memcpy(heap.data() + flags_at, flags.data(), flags.size() * 8);
    heap_ = std::make_unique<DeviceArray<uint8_t>>(heap);
    bases_ = std::make_unique<DeviceArray<uint8_t*>>(
        std::vector<uint8_t*>(c.rows.size(), heap_->data()));
    step_ = std::make_unique<DeviceArray<uint64_t>>(std::vector<uint64_t>{2});
    CHECK_CUDA(cudaHostAlloc(&host_words_, sizeof(cuda::WaitReport) + 64, cudaHostAllocMapped));
    std::memset(host_words_, 0, sizeof(cuda::WaitReport) + 64);
    cuda::ExchangeView& exchange = args_.exchange;
    exchange.base = bases_->data();
    exchange.offsets.row_counts = static_cast<int64_t>(counts_at);
    exchange.offsets.flags = static_cast<int64_t>(flags_at);
    exchange.wait.abort_word = static_cast<int32_t*>(host_words_);
    exchange.wait.report =
        reinterpret_cast<cuda::WaitReport*>(static_cast<uint8_t*>(host_words_) + 64);
    exchange.wait.timeout_ns = 1000000000;
    exchange.self = sources / 2;
    exchange.num_instances = sources;
    exchange.max_rows = max_rows;
    exchange.hidden = c.hidden;
    exchange.topk = c.topk;
    args_.epoch = {.step = step_->data(), .per_step = 3, .index = 1};
    args_.expert_begin = c.begin;
    args_.num_experts = c.owned;
    args_.tile_rows = tile_rows;
    sizes_ = cuda::expert_plan_sizes(args_.exchange, c.owned, tile_rows);
    row_of_ = std::make_unique<DeviceArray<int32_t>>(static_cast<size_t>(sizes_.max_assignments));
    assignment_of_ = std::make_unique<DeviceArray<int32_t>>(topk_idx.size());
    tiles_ = std::make_unique<DeviceArray<cuda::TokenTile>>(static_cast<size_t>(sizes_.max_tiles));
    num_tiles_ = std::make_unique<DeviceArray<int32_t>>(size_t{1});
    args_.lists = {row_of_->data(), assignment_of_->data(), tiles_->data(), num_tiles_->data()};
  }
  ~Plan() { cudaFreeHost(host_words_); }

  void launch(cudaStream_t stream) const { expect_ok(cuda::launch_expert_plan(args_, stream)); }
  const cuda::ExpertLists& lists() const { return args_.lists; }
  const cuda::ExpertPlanSizes& sizes() const { return sizes_; }

  // (row id, place in assignment_of) of each assignment, per local expert, in the wanted order.
  std::vector<std::vector<std::pair<int32_t, size_t>>> wanted(const Case& c) const {
    std::vector<std::vector<std::pair<int32_t, size_t>>> by_expert(static_cast<size_t>(c.owned));
    for (size_t source = 0; source < c.rows.size(); ++source) {
      for (int i = 0; i < c.rows[source] * c.topk; ++i) {
        const auto row = static_cast<int32_t>(source) * args_.exchange.max_rows + i / c.topk;
        const size_t at = static_cast<size_t>(row) * static_cast<size_t>(c.topk) +
                          static_cast<size_t>(i % c.topk);
        const int32_t expert = topk_idx_[at] - c.begin;
        if (expert >= 0 && expert < c.owned) {
          by_expert[static_cast<size_t>(expert)].emplace_back(row, at);
        }
      }
    }
    return by_expert;
  }

  bool is_as_wanted(const Case& c) const {
    const auto row_of = row_of_->to_host();
    const auto assignment_of = assignment_of_->to_host();
    const auto tiles = tiles_->to_host();
    const auto num_tiles = static_cast<size_t>(num_tiles_->to_host()[0]);
    int32_t next = 0;
    size_t tile = 0;
    size_t named = 0;
    const auto by_expert = wanted(c);
    for (size_t e = 0; e < by_expert.size(); ++e) {
      const auto count = static_cast<int32_t>(by_expert[e].size());
      for (int32_t begin = 0; begin < count; begin += args_.tile_rows, ++tile) {
        const int32_t here = std::min(args_.tile_rows, count - begin);
        if (tile >= num_tiles || tiles[tile].expert != static_cast<int32_t>(e) ||
            tiles[tile].begin != next + begin || tiles[tile].count != here) {
          std::printf("plan: tile %zu of %zu is wrong (expert %zu)\n", tile, num_tiles, e);
          return false;
        }
      }
      for (const auto& [row, at] : by_expert[e]) {
        if (row_of[static_cast<size_t>(next)] != row || assignment_of[at] != next) {
          std::printf("plan: assignment %d (expert %zu): row %d, not %d; inverse %d\n", next, e,
                      row_of[static_cast<size_t>(next)], row, assignment_of[at]);
          return false;
        }
        ++next;
        ++named;
      }
    }
    size_t not_here = 0;
    size_t choices = 0;
    for (size_t source = 0; source < c.rows.size(); ++source) {
      const size_t begin = source * static_cast<size_t>(args_.exchange.max_rows * c.topk);
      const size_t count = static_cast<size_t>(c.rows[source] * c.topk);
      choices += count;
      for (size_t i = begin; i < begin + count; ++i) not_here += assignment_of[i] == -1 ? 1 : 0;
    }
    if (tile != num_tiles || named + not_here != choices) {
      std::printf("plan: %zu tiles, not %zu; %zu + %zu of %zu choices\n", num_tiles, tile, named,
                  not_here, choices);
      return false;
    }
    return true;
  }

 private:
  static constexpr uint64_t kEpoch = 5;  // step 2, exchange 1 of 3; odd
  std::vector<int32_t> topk_idx_;
  std::unique_ptr<DeviceArray<uint8_t>> heap_;
  std::unique_ptr<DeviceArray<uint8_t*>> bases_;
  std::unique_ptr<DeviceArray<uint64_t>> step_;
  void* host_words_ = nullptr;
  cuda::ExpertPlanArgs args_ = {};
  cuda::ExpertPlanSizes sizes_ = {};
  std::unique_ptr<DeviceArray<int32_t>> row_of_, assignment_of_, num_tiles_;
  std::unique_ptr<DeviceArray<cuda::TokenTile>> tiles_;
};

float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

std::vector<__nv_bfloat16> random_values(size_t count, float amplitude, Random& random) {
  std::vector<__nv_bfloat16> values(count);
  for (__nv_bfloat16& value : values) {
    const uint64_t bits = random.next();
    value = __float2bfloat16((static_cast<float>(bits >> 40) * 0x1.0p-23F - 1.0F) * amplitude);
  }
  return values;
}

std::vector<float> random_floats(size_t count, Random& random) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random.uniform() * 2 - 1);
  return values;
}

// A random matrix as it is stored, and its values.
struct HostMatrix {
  tensor::WeightView view;  // without pointers
  std::vector<uint8_t> data;
  std::vector<float> scales;
  std::vector<uint8_t> group_scales;
  std::vector<float> values;
};

constexpr int64_t kScaleBlock = 128;

float fp8_value(uint8_t code) {
  const int exponent = code >> 3 & 15;
  const auto fraction = static_cast<float>(code & 7) / 8;
  const float size =
      exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1 + fraction, exponent - 7);
  return (code & 0x80) != 0 ? -size : size;
}

void fill_fp8(HostMatrix& matrix, float amplitude, Random& random) {
  tensor::WeightView& view = matrix.view;
  view.block_rows = view.block_cols = kScaleBlock;
  view.scale_stride = (view.cols + kScaleBlock - 1) / kScaleBlock;
  matrix.scales = random_floats(
      static_cast<size_t>((view.rows + kScaleBlock - 1) / kScaleBlock * view.scale_stride), random);
  for (float& scale : matrix.scales) scale *= amplitude;
  for (int64_t i = 0; i < view.rows * view.cols; ++i) {
    const uint64_t bits = random.next();  // exponents -4 to 1, and some subnormal numbers
    const uint64_t exponent = bits % 16 == 0 ? 0 : 3 + (bits >> 8) % 6;
    const auto code = static_cast<uint8_t>((bits >> 32 & 0x87) | exponent << 3);
    matrix.data.push_back(code);
    const int64_t block =
        i / view.cols / kScaleBlock * view.scale_stride + i % view.cols / kScaleBlock;
    matrix.values.push_back(fp8_value(code) * matrix.scales[static_cast<size_t>(block)]);
  }
}

void fill_mxfp4(HostMatrix& matrix, float amplitude, Random& random) {
  constexpr float kSizes[] = {0.0F, 0.5F, 1.0F, 1.5F, 2.0F, 3.0F, 4.0F, 6.0F};
  tensor::WeightView& view = matrix.view;
  view.group_scale_stride = view.cols / tensor::kMxfp4GroupSize;
  const int middle = static_cast<int>(std::lround(std::log2(amplitude))) - 2;
  for (int64_t i = 0; i < view.rows * view.group_scale_stride; ++i) {
    matrix.group_scales.push_back(static_cast<uint8_t>(127 + middle + random.between(-1, 1)));
  }
  for (int64_t i = 0; i < view.rows * view.cols; ++i) {
    const auto code = static_cast<uint8_t>(random.below(16));
    if (i % 2 == 0) {
      matrix.data.push_back(code);
    } else {
      matrix.data.back() = static_cast<uint8_t>(matrix.data.back() | code << 4);
    }
    const int scale = matrix.group_scales[static_cast<size_t>(i / tensor::kMxfp4GroupSize)];
    const float size = std::ldexp(kSizes[code % 8], scale - 127);
    matrix.values.push_back(code >= 8 ? -size : size);
  }
}

HostMatrix random_matrix(tensor::WeightFormat format, int rows, int cols, float amplitude,
                         Random& random) {
  HostMatrix matrix;
  matrix.view.format = format;
  matrix.view.rows = rows;
  matrix.view.cols = cols;
  matrix.view.stride_bytes = tensor::row_bytes(format, cols);
  if (format == tensor::WeightFormat::kFp8Block) {
    fill_fp8(matrix, amplitude, random);
  } else if (format == tensor::WeightFormat::kMxfp4) {
    fill_mxfp4(matrix, amplitude, random);
  } else {
    const auto bf16 = random_values(static_cast<size_t>(rows * cols), amplitude, random);
    matrix.data.resize(bf16.size() * 2);
    std::memcpy(matrix.data.data(), bf16.data(), matrix.data.size());
    for (const __nv_bfloat16 value : bf16) matrix.values.push_back(to_float(value));
  }
  return matrix;
}

// The matrix in device memory.
class DeviceMatrix {
 public:
  explicit DeviceMatrix(const HostMatrix& matrix)
      : data_(matrix.data),
        scales_(matrix.scales),
        group_scales_(matrix.group_scales),
        view_(matrix.view) {
    view_.data = data_.data();
    view_.scales = scales_.data();
    view_.group_scales = group_scales_.data();
  }
  const tensor::WeightView& view() const { return view_; }

 private:
  DeviceArray<uint8_t> data_;
  DeviceArray<float> scales_;
  DeviceArray<uint8_t> group_scales_;
  tensor::WeightView view_;
};

// y = W x + bias.
void multiply(const std::vector<float>& weights, const float* bias, const std::vector<float>& x,
              std::vector<float>& y) {
  for (size_t r = 0; r < y.size(); ++r) {
    float sums[4] = {};
    for (size_t i = 0; i < x.size(); i += 4) {
      for (size_t j = 0; j < 4; ++j) sums[j] += weights[r * x.size() + i + j] * x[i + j];
    }
    y[r] = sums[0] + sums[1] + sums[2] + sums[3] + (bias == nullptr ? 0.0F : bias[r]);
  }
}

struct HostExpert {
  HostMatrix gate, up, down;
  std::vector<float> gate_bias, up_bias, down_bias;
};

HostExpert random_expert(const Case& c, Random& random) {
  HostExpert expert;
  const float spread = 3.0F / std::sqrt(static_cast<float>(c.hidden));
  expert.gate = random_matrix(c.format, c.intermediate, c.hidden, spread, random);
  expert.up = random_matrix(c.format, c.intermediate, c.hidden, spread, random);
  expert.down = random_matrix(c.format, c.hidden, c.intermediate,
                              2.0F / std::sqrt(static_cast<float>(c.intermediate)), random);
  expert.gate_bias = random_floats(static_cast<size_t>(c.intermediate), random);
  expert.up_bias = random_floats(static_cast<size_t>(c.intermediate), random);
  expert.down_bias = random_floats(static_cast<size_t>(c.hidden), random);
  return expert;
}

}  // namespace
}  // namespace nanocp
