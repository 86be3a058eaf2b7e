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
#include <vector>

#include "backend/cuda/expert_mlp.h"
#include "backend/cuda/expert_plan.h"
#include "base/random.h"
#include "bench/kernels/cuda_bench.h"
#include "bench/kernels/cuda_expert_bench_data.h"
#include "bench/kernels/cuda_read_kernel.cuh"
#include "ops/activation.h"

namespace nanocp {
namespace {

// --- check

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

__global__ void fill_kernel(uint32_t* data, size_t count, uint32_t exponents) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = (noise & 0x807f807fU) | exponents;
  }
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
  const double plan_us = bench::time_in_graph(count, [&](int, cudaStream_t s) { plan.launch(s); });
  const double us = bench::time_in_graph(count, run);
  const double both_us = bench::time_in_graph(count, [&](int i, cudaStream_t stream) {
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
  const double us = bench::time_in_graph(8, [&](int i, cudaStream_t stream) {
    const auto* data =
        reinterpret_cast<const uint4*>(memory.data()) + static_cast<size_t>(i) * part / 16;
    bench::read_kernel<<<132 * 16, 512, 0, stream>>>(data, part / 16, sink.data());
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
