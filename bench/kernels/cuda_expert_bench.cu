// Expert plan and expert MLP on one GPU: `--check` compares both with plain host loops on random
// rows, weights and choices; `--time` measures decode batches against the time that reading the
// touched experts' weights takes at the read bandwidth of the same run. Times are of one layer
// inside a CUDA graph that goes round several layers' weights, so that none is in the second-level
// cache.
#include <cuda_bf16.h>

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
#include "ops/activation.h"

namespace nanocp {
namespace {

void check_cuda(cudaError_t code, int line) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "error: line %d: %s\n", line, cudaGetErrorString(code));
  std::exit(1);
}
#define CHECK_CUDA(call) check_cuda((call), __LINE__)

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
    const size_t idx_bytes = topk_idx.size() * 4;
    const size_t counts_at = (idx_bytes + 255) / 256 * 256;
    const size_t flags_at = counts_at + 256 * ((c.rows.size() * 4 + 255) / 256);
    std::vector<uint8_t> heap(flags_at + cuda::kNumFlagKinds * c.rows.size() * 8);
    std::memcpy(heap.data(), topk_idx.data(), idx_bytes);
    std::memcpy(heap.data() + counts_at, c.rows.data(), c.rows.size() * 4);
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
    exchange.offsets.dispatch_count = static_cast<int64_t>(counts_at);
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
  static constexpr uint64_t kEpoch = 5;  // step 2, exchange 1 of 3
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

// --- check

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

std::vector<float> run_expert(const Case& c, const HostExpert& expert,
                              const std::vector<float>& x) {
  const auto bias = [&](const std::vector<float>& values) {
    return c.has_bias ? values.data() : nullptr;
  };
  std::vector<float> gate(static_cast<size_t>(c.intermediate)), up(gate.size());
  multiply(expert.gate.values, bias(expert.gate_bias), x, gate);
  multiply(expert.up.values, bias(expert.up_bias), x, up);
  ops::gated_activation(c.activation, {gate.data(), 1, c.intermediate, c.intermediate},
                        {up.data(), 1, c.intermediate, c.intermediate});
  for (float& value : gate) value = to_float(__float2bfloat16(value));
  std::vector<float> y(static_cast<size_t>(c.hidden));
  multiply(expert.down.values, bias(expert.down_bias), gate, y);
  return y;
}

void upload(const float* to, const std::vector<float>& values) {
  CHECK_CUDA(cudaMemcpy(const_cast<float*>(to), values.data(), values.size() * sizeof(float),
                        cudaMemcpyHostToDevice));
}

void pack_expert(const Case& c, const cuda::ExpertShape& shape, const HostExpert& expert,
                 int32_t index, void* packed) {
  const DeviceMatrix gate(expert.gate), up(expert.up), down(expert.down);
  if (shape.format == tensor::WeightFormat::kBf16) {
    expect_ok(cuda::launch_pack_expert({.shape = shape,
                                        .gate = gate.view().data,
                                        .up = up.view().data,
                                        .down = down.view().data,
                                        .packed = packed,
                                        .expert = index},
                                       nullptr));
  } else {
    expect_ok(cuda::launch_pack_expert_views({.shape = shape,
                                              .gate = gate.view(),
                                              .up = up.view(),
                                              .down = down.view(),
                                              .packed = packed,
                                              .expert = index},
                                             nullptr));
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  if (!c.has_bias) return;
  const cuda::ExpertWeights weights = cuda::expert_weights_at(shape, packed);
  upload(weights.gate_up_bias + int64_t{2} * index * c.intermediate, expert.gate_bias);
  upload(weights.gate_up_bias + (int64_t{2} * index + 1) * c.intermediate, expert.up_bias);
  upload(weights.down_bias + int64_t{index} * c.hidden, expert.down_bias);
}

struct Difference {
  double largest = 0.0;  // over the allowed one
  int expert = -1;
  int assignment = -1;
  int column = -1;
};

Difference compare_expert(const Case& c, const HostExpert& expert, int32_t index,
                          const std::vector<std::pair<int32_t, size_t>>& rows, int32_t first,
                          const std::vector<__nv_bfloat16>& x,
                          const std::vector<__nv_bfloat16>& y) {
  Difference difference;
  const auto hidden = static_cast<size_t>(c.hidden);
  // Of an expert with many rows, every one of the first and some of the rest.
  const size_t stride = rows.size() > 100 ? 7 : 1;
  for (size_t i = 0; i < rows.size(); i += i < 40 ? 1 : stride) {
    std::vector<float> row(hidden);
    for (size_t j = 0; j < hidden; ++j) {
      row[j] = to_float(x[static_cast<size_t>(rows[i].first) * hidden + j]);
    }
    const std::vector<float> want = run_expert(c, expert, row);
    for (size_t j = 0; j < hidden; ++j) {
      const float got = to_float(y[(static_cast<size_t>(first) + i) * hidden + j]);
      // Results are of size 1 to 10; they and the intermediate values are rounded to 8 bits.
      double error = std::abs(got - want[j]) / (0.01 + 0.01 * std::abs(want[j]));
      if (std::isnan(got)) error = INFINITY;
      if (error <= difference.largest) continue;
      difference = {error, index, first + static_cast<int>(i), static_cast<int>(j)};
    }
  }
  return difference;
}

bool check_case(const Case& c, Random& random) {
  const auto max_rows = *std::max_element(c.rows.begin(), c.rows.end()) + 3;
  const cuda::ExpertShape shape = {c.hidden, c.intermediate, c.owned, c.has_bias, c.format};
  const int32_t tile_rows = cuda::expert_tile_rows(shape);
  const Plan plan(c, max_rows, tile_rows, choose_experts(c, max_rows, random));
  plan.launch(nullptr);
  const DeviceArray<uint8_t> packed(static_cast<size_t>(cuda::expert_weight_bytes(shape)));
  std::vector<HostExpert> experts;
  for (int32_t e = 0; e < c.owned; ++e) {
    experts.push_back(random_expert(c, random));
    pack_expert(c, shape, experts.back(), e, packed.data());
  }
  const auto x = random_values(c.rows.size() * static_cast<size_t>(max_rows * c.hidden), 1, random);
  const DeviceArray<__nv_bfloat16> device_x(x);
  const auto assignments = static_cast<size_t>(plan.sizes().max_assignments);
  const DeviceArray<__nv_bfloat16> h(assignments * static_cast<size_t>(c.intermediate));
  const DeviceArray<__nv_bfloat16> y(assignments * static_cast<size_t>(c.hidden));
  expect_ok(cuda::launch_expert_mlp({.weights = cuda::expert_weights_at(shape, packed.data()),
                                     .activation = c.activation,
                                     .lists = plan.lists(),
                                     .x = device_x.data(),
                                     .h = h.data(),
                                     .y = y.data()},
                                    nullptr));
  CHECK_CUDA(cudaDeviceSynchronize());
  const bool planned = plan.is_as_wanted(c);
  const auto got = y.to_host();
  Difference worst;
  int32_t first = 0;
  const auto by_expert = plan.wanted(c);
  for (size_t e = 0; planned && e < by_expert.size(); ++e) {
    const Difference difference =
        compare_expert(c, experts[e], static_cast<int32_t>(e), by_expert[e], first, x, got);
    if (difference.largest > worst.largest) worst = difference;
    first += static_cast<int32_t>(by_expert[e].size());
  }
  const bool passed = planned && worst.largest <= 1.0;
  std::printf(
      "check %-5s %4d/%4d, %3d of %3d experts, topk %d, %zu sources, %5d assignments, tiles of "
      "%2d: %.2f of allowed",
      to_string(c.format), c.hidden, c.intermediate, c.owned, c.num_experts, c.topk, c.rows.size(),
      first, tile_rows, worst.largest);
  if (!passed) {
    std::printf(" at expert %d assignment %d column %d", worst.expert, worst.assignment,
                worst.column);
  }
  std::printf(" %s\n", passed ? "ok" : "FAILED");
  return passed;
}

bool check_plan(const Case& c, int max_rows, int32_t tile_rows, Random& random) {
  const Plan plan(c, max_rows, tile_rows, choose_experts(c, max_rows, random));
  plan.launch(nullptr);
  CHECK_CUDA(cudaDeviceSynchronize());
  bool passed = plan.is_as_wanted(c);
  plan.launch(nullptr);  // nothing of the first launch is left over
  CHECK_CUDA(cudaDeviceSynchronize());
  passed = passed && plan.is_as_wanted(c);
  std::printf("check plan: %3d of %3d experts, topk %d, %zu sources, tiles of %2d: %s\n", c.owned,
              c.num_experts, c.topk, c.rows.size(), tile_rows, passed ? "ok" : "FAILED");
  return passed;
}

int run_checks() {
  Random random(1);
  int num_failed = 0;
  constexpr auto kClamped = ops::Activation::kClampedSwiglu;
  constexpr auto kSwiglu = ops::Activation::kSwiglu;
  constexpr auto kFp8 = tensor::WeightFormat::kFp8Block;
  constexpr auto kMxfp4 = tensor::WeightFormat::kMxfp4;
  for (const Case& c :
       {Case{64, 64, 128, 0, 128, 8, {1}}, Case{64, 64, 128, 0, 128, 8, {256}},
        Case{64, 64, 128, 16, 16, 8, {13, 0, 200, 1, 77, 33, 0, 64}},
        Case{64, 64, 512, 100, 301, 10, {33, 65}}, Case{64, 64, 8, 3, 1, 2, {40, 0}},
        Case{64, 64, 1024, 0, 1024, 8, {999, 1500}}, Case{64, 64, 4, 0, 4, 4, {0, 0, 0}},
        Case{64, 64, 128, 0, 128, 8, {4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096}},
        Case{64, 64, 128, 0, 128, 8, {8192}, Routing::kFirstIsOne}}) {
    const int most = *std::max_element(c.rows.begin(), c.rows.end());
    if (!check_plan(c, std::max(1, most), 8, random)) ++num_failed;
    if (!check_plan(c, most + 5, 24, random)) ++num_failed;
  }
  for (const Case& c :
       {Case{128, 64, 8, 0, 8, 2, {1}},
        Case{256, 128, 8, 2, 4, 4, {3, 0, 9}},
        Case{256, 96, 16, 0, 16, 4, {70}, Routing::kRandom, kSwiglu, true},
        Case{128, 128, 16, 4, 8, 4, {40, 33}, Routing::kFirstIsOne, kClamped, true},
        Case{320, 224, 16, 4, 8, 4, {301}, Routing::kFirstIsOne},
        Case{32, 32, 4, 0, 4, 2, {5}},
        Case{128, 64, 8, 0, 8, 2, {0, 0}},
        Case{2048, 768, 128, 8, 8, 8, {1}},
        Case{2048, 768, 128, 8, 8, 8, {64, 40}},
        Case{2048, 1408, 64, 0, 6, 6, {20}},
        Case{2880, 2880, 32, 4, 4, 4, {30}, Routing::kRandom, kClamped, true},
        Case{7168, 2048, 64, 2, 2, 8, {40}, Routing::kFirstIsOne},
        Case{128, 64, 8, 0, 8, 2, {5}, Routing::kRandom, kSwiglu, false, kFp8},
        Case{320, 224, 16, 4, 8, 4, {120}, Routing::kFirstIsOne, kSwiglu, true, kFp8},
        Case{2048, 768, 128, 8, 8, 8, {64, 40}, Routing::kRandom, kSwiglu, false, kFp8},
        Case{7168, 2048, 64, 2, 2, 8, {20}, Routing::kRandom, kSwiglu, false, kFp8},
        Case{128, 64, 8, 0, 8, 2, {5}, Routing::kRandom, kSwiglu, false, kMxfp4},
        Case{320, 224, 16, 4, 8, 4, {120}, Routing::kFirstIsOne, kClamped, true, kMxfp4},
        Case{2880, 2880, 32, 4, 4, 4, {60}, Routing::kRandom, kClamped, true, kMxfp4},
        Case{2048, 768, 16, 0, 4, 4, {150}, Routing::kFewExperts}}) {
    if (!check_case(c, random)) ++num_failed;
  }
  std::printf("%s\n", num_failed == 0 ? "all checks passed" : "CHECKS FAILED");
  return num_failed == 0 ? 0 : 1;
}

// --- time

__global__ void read_kernel(const uint4* data, size_t count, uint32_t* sink) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += 4 * stride) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (i + j * stride < count) {
        const uint4 value = data[i + j * stride];
        sum ^= value.x ^ value.y ^ value.z ^ value.w;
      }
    }
  }
  if (sum == 0x12345678U) *sink = sum;
}

__global__ void fill_kernel(uint32_t* data, size_t count, uint32_t exponents) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = (noise & 0x807f807fU) | exponents;
  }
}

// Median time in microseconds of one of `count` equal launches captured into a graph.
template <typename Launch>
double time_in_graph(int count, Launch launch_one) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  cudaEvent_t begin, end;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) launch_one(i, stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  std::vector<float> times;
  for (int repetition = 0; repetition < 12; ++repetition) {
    CHECK_CUDA(cudaEventRecord(begin, stream));
    CHECK_CUDA(cudaGraphLaunch(executable, stream));
    CHECK_CUDA(cudaEventRecord(end, stream));
    CHECK_CUDA(cudaEventSynchronize(end));
    float milliseconds = 0.0F;
    CHECK_CUDA(cudaEventElapsedTime(&milliseconds, begin, end));
    if (repetition >= 2) times.push_back(milliseconds * 1000.0F / static_cast<float>(count));
  }
  CHECK_CUDA(cudaGraphExecDestroy(executable));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

constexpr int kLayers = 3;

struct Model {
  const char* name;
  int hidden, intermediate, num_experts, topk;
  tensor::WeightFormat format = tensor::WeightFormat::kBf16;
};

void time_rows(const Model& model, int rows, const DeviceArray<uint32_t>& weights,
               double read_gb_per_s, Random& random) {
  const Case c = {
      model.hidden, model.intermediate, model.num_experts, 0, model.num_experts, model.topk,
      {rows}};
  const cuda::ExpertShape shape = {c.hidden, c.intermediate, c.owned, false, model.format};
  const Plan plan(c, rows, cuda::expert_tile_rows(shape), choose_experts(c, rows, random));
  const auto assignments = static_cast<size_t>(rows * c.topk);
  const DeviceArray<__nv_bfloat16> x(
      random_values(static_cast<size_t>(rows * c.hidden), 1, random));
  const DeviceArray<__nv_bfloat16> h(assignments * static_cast<size_t>(c.intermediate));
  const DeviceArray<__nv_bfloat16> y(assignments * static_cast<size_t>(c.hidden));
  cuda::ExpertMlpArgs args;
  args.lists = plan.lists();
  args.x = x.data();
  args.h = h.data();
  args.y = y.data();
  const auto run = [&](int i, cudaStream_t stream) {
    auto* layer = reinterpret_cast<uint8_t*>(weights.data()) +
                  (i % kLayers) * cuda::expert_weight_bytes(shape);
    args.weights = cuda::expert_weights_at(shape, layer);
    expect_ok(cuda::launch_expert_mlp(args, stream));
  };
  const int count = rows > 1000 ? 6 : 24;
  const double plan_us = time_in_graph(count, [&](int, cudaStream_t s) { plan.launch(s); });
  const double us = time_in_graph(count, run);
  const double both_us = time_in_graph(count, [&](int i, cudaStream_t stream) {
    plan.launch(stream);
    run(i, stream);
  });
  double touched = 0;
  for (const auto& rows_of : plan.wanted(c)) touched += rows_of.empty() ? 0 : 1;
  int64_t bits = 8 * tensor::row_bytes(model.format, 32);  // of 32 weights
  if (model.format == tensor::WeightFormat::kMxfp4) bits += 8;
  const double bytes =
      touched * 3 * c.hidden * c.intermediate * static_cast<double>(bits) / (32 * 8);
  const double floor_us = bytes / read_gb_per_s / 1e3;
  const double tflops =
      static_cast<double>(assignments) * c.hidden * c.intermediate * 6.0 / us / 1e6;
  std::printf(
      "time  %-16s %-5s %5d rows, %3.0f experts: %8.1f us, floor %7.1f, ratio %.3f, %6.1f "
      "TFLOP/s; plan %5.1f us, with plan %8.1f us\n",
      model.name, to_string(model.format), rows, touched, us, floor_us, us / floor_us, tflops,
      plan_us, both_us);
}

void time_model(const Model& model, const std::vector<int>& rows, double read_gb_per_s) {
  const cuda::ExpertShape shape = {model.hidden, model.intermediate, model.num_experts, false,
                                   model.format};
  const DeviceArray<uint32_t> weights(static_cast<size_t>(cuda::expert_weight_bytes(shape)) / 4 *
                                      kLayers);
  fill_kernel<<<2048, 256>>>(weights.data(), weights.bytes() / 4, 0x3c803c80U);  // about 1 / 64
  CHECK_CUDA(cudaDeviceSynchronize());
  Random random(7);
  for (const int count : rows) time_rows(model, count, weights, read_gb_per_s, random);
}

double read_bandwidth() {
  const DeviceArray<uint32_t> memory(size_t{1} << 30);  // 4 GiB
  fill_kernel<<<2048, 256>>>(memory.data(), memory.bytes() / 4, 0x3f003f00U);
  CHECK_CUDA(cudaDeviceSynchronize());
  const DeviceArray<uint32_t> sink(size_t{1});
  const size_t part = memory.bytes() / 8;
  const double us = time_in_graph(8, [&](int i, cudaStream_t stream) {
    const auto* data =
        reinterpret_cast<const uint4*>(memory.data()) + static_cast<size_t>(i) * part / 16;
    read_kernel<<<132 * 16, 512, 0, stream>>>(data, part / 16, sink.data());
  });
  return static_cast<double>(part) / us / 1e3;
}

int run_times(const std::vector<int>& rows) {
  const double read = read_bandwidth();
  std::printf("read bandwidth %.0f GB/s\n", read);
  constexpr auto kFp8 = tensor::WeightFormat::kFp8Block;
  constexpr auto kMxfp4 = tensor::WeightFormat::kMxfp4;
  for (const Model& model :
       {Model{"qwen3-30b-a3b", 2048, 768, 128, 8}, Model{"deepseek-v2-lite", 2048, 1408, 64, 6},
        Model{"qwen3-30b-a3b", 2048, 768, 128, 8, kFp8},
        Model{"gpt-oss-20b", 2880, 2880, 32, 4, kMxfp4}, Model{"gpt-oss-20b", 2880, 2880, 32, 4}}) {
    time_model(model, rows, read);
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::run_checks();
  if (argc >= 2 && std::strcmp(argv[1], "--time") == 0) {
    std::vector<int> rows;
    for (int i = 2; i < argc; ++i) rows.push_back(std::max(1, std::atoi(argv[i])));
    if (rows.empty()) rows = {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 8192};
    return nanocp::run_times(rows);
  }
  std::fprintf(stderr, "usage: %s --check | --time [rows ...]\n", argv[0]);
  return 1;
}
