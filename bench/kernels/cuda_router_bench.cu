// The router's logits: `--check` compares random rows of many shapes with double sums, `--time`
// measures the kernel behind the sum that comes before it, inside a graph over the weights of many
// layers.
#include "backend/cuda/router.h"

#include <cstring>

#include "backend/cuda/row_ops.h"
#include "bench/kernels/cuda_row_ops_bench_data.h"

namespace nanocp::bench {
namespace {

constexpr float kEps = 1e-6F;
constexpr int kPadding = 3;  // rows of a bucket beyond the real ones
constexpr int kLayers = 48;

struct Case {
  int rows, hidden, num_experts;
};

DeviceArray<cuda::StepHeader> make_header(int num_rows) {
  return DeviceArray<cuda::StepHeader>(std::vector<cuda::StepHeader>{{1, num_rows, 0, 0, 0}});
}

// Rows in float32 whose logits do not survive a rounding to bf16: what is wanted are exact sums.
bool check_logits(const Case& c, Random& random) {
  const auto bucket = static_cast<size_t>(c.rows + kPadding);
  const auto hidden = static_cast<size_t>(c.hidden);
  const auto num_experts = static_cast<size_t>(c.num_experts);
  const auto residual = random_floats(bucket * hidden, -2.0F, 2.0F, random);
  const auto norm = random_floats(hidden, 0.5F, 1.5F, random);
  const Bf16Values weight(num_experts * hidden, 0.1F, random);
  const DeviceArray<float> d_residual(residual), d_norm(norm), logits(bucket * num_experts);
  const DeviceArray<__nv_bfloat16> d_weight(weight.bf16);
  const auto header = make_header(c.rows);
  CHECK_STATUS(cuda::launch_router({.header = header.data(),
                                    .rows = static_cast<int32_t>(bucket),
                                    .hidden = c.hidden,
                                    .num_experts = c.num_experts,
                                    .residual = d_residual.data(),
                                    .norm_weight = d_norm.data(),
                                    .eps = kEps,
                                    .weight = d_weight.data(),
                                    .logits = logits.data()},
                                   nullptr));
  std::vector<float> want(bucket * num_experts, NAN);
  for (size_t r = 0; r < static_cast<size_t>(c.rows); ++r) {
    const float* x = residual.data() + r * hidden;
    double squares = 0.0;
    for (size_t k = 0; k < hidden; ++k) squares += static_cast<double>(x[k]) * x[k];
    const double scale = 1.0 / std::sqrt(squares / c.hidden + static_cast<double>(kEps));
    for (size_t e = 0; e < num_experts; ++e) {
      double sum = 0.0;
      for (size_t k = 0; k < hidden; ++k) {
        sum += static_cast<double>(x[k]) * norm[k] * weight.as_float[e * hidden + k];
      }
      want[r * num_experts + e] = static_cast<float>(sum * scale);
    }
  }
  const bool passed =
      agree(std::to_string(c.rows) + " rows of " + std::to_string(c.hidden) + ", " +
                std::to_string(c.num_experts) + " experts",
            logits.to_host(), want, {1e-5, 2e-6 * std::sqrt(static_cast<double>(c.hidden))});
  return passed;
}

int run_checks() {
  Random random(3);
  bool passed = true;
  for (const int rows : {0, 1, 13, 14, 29, 70}) {
    for (const auto& [hidden, experts] : {std::pair{2048, 128},
                                          {2048, 64},
                                          {2880, 32},
                                          {7168, 256},
                                          {320, 8},
                                          {40, 60},
                                          {5120, 160},
                                          {6144, 512},
                                          {12288, 264}}) {
      passed &= check_logits({rows, hidden, experts}, random);
    }
  }
  std::printf("check router: %s\n", passed ? "ok" : "FAILED");
  return passed ? 0 : 1;
}

void time_logits(const Case& c) {
  const auto rows = static_cast<size_t>(c.rows);
  const auto hidden = static_cast<size_t>(c.hidden);
  const size_t values = hidden * static_cast<size_t>(c.num_experts);
  const DeviceArray<float> residual(std::vector<float>(rows * hidden, 1.0F));
  const DeviceArray<float> norm(std::vector<float>(hidden * kLayers, 1.0F));
  const DeviceArray<float> logits(rows * static_cast<size_t>(c.num_experts));
  const DeviceArray<__nv_bfloat16> weight(values * kLayers);
  const DeviceArray<__nv_bfloat16> delta(std::vector<__nv_bfloat16>(rows * hidden));
  const auto header = make_header(c.rows);
  const auto add = [&](int, cudaStream_t stream) {
    CHECK_STATUS(cuda::launch_add_norm({.header = header.data(),
                                        .rows = c.rows,
                                        .hidden = c.hidden,
                                        .delta = delta.data(),
                                        .delta_stride = c.hidden,
                                        .eps = kEps,
                                        .residual = residual.data()},
                                       stream));
  };
  const double add_us = time_in_graph(kLayers, add);
  const double both_us = time_in_graph(kLayers, [&](int layer, cudaStream_t stream) {
    add(layer, stream);
    CHECK_STATUS(
        cuda::launch_router({.header = header.data(),
                             .rows = c.rows,
                             .hidden = c.hidden,
                             .num_experts = c.num_experts,
                             .residual = residual.data(),
                             .norm_weight = norm.data() + static_cast<size_t>(layer) * hidden,
                             .eps = kEps,
                             .weight = weight.data() + static_cast<size_t>(layer) * values,
                             .logits = logits.data()},
                            stream));
  });
  std::printf("time  router: %3d rows of %d, %3d experts: adds %5.2f us to a sum of %.2f us\n",
              c.rows, c.hidden, c.num_experts, both_us - add_us, add_us);
}

int run_times() {
  for (const auto& [hidden, experts] : {std::pair{2048, 128}, {2048, 64}, {7168, 256}}) {
    for (const int rows : {1, 8, 16, 64, 128, 256, 2048}) time_logits({rows, hidden, experts});
  }
  return 0;
}

}  // namespace
}  // namespace nanocp::bench

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::bench::run_checks();
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::bench::run_times();
  std::fprintf(stderr, "usage: %s --check | --time\n", argv[0]);
  return 1;
}
