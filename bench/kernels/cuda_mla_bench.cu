// Latent decode attention (MLA) on one GPU: `--check` compares random shards with the plain
// reference for several head counts, block sizes and both formats of the cache, also with rows of
// another instance that come late; `--time` measures few heads against the read bandwidth of the
// same run, and many heads by their products. Times are of one layer inside a CUDA
// graph that goes round several copies of the cache, so that none of it is in the second-level
// cache, with nothing between the layers and, the second time, with an empty kernel, which counts.
// The schedule, once per step, is timed apart.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "backend/cuda/launch_overlapped.h"
#include "backend/cuda/mla_decode.h"
#include "base/random.h"
#include "bench/kernels/cuda_attention_bench_data.h"
#include "bench/kernels/cuda_device_array.h"
#include "bench/kernels/cuda_late_instance.cuh"
#include "bench/kernels/cuda_read_kernel.cuh"
#include "ops/attention.h"

namespace nanocp {
namespace {

Shape make_shape(int heads, int block_size, cuda::CacheType cache) {
  return {heads, 1, cuda::kLatentKeyDim, block_size, 0, cache};
}

const char* name_of(cuda::CacheType cache) {
  return cache == cuda::CacheType::kBf16 ? "bf16" : "fp8";
}

// --- check ---

// What a row does not see must not reach its result, whatever it is.
void spoil_unseen_tokens(const Shape& shape, const Plan& plan, std::vector<uint8_t>& cache) {
  const int64_t token_bytes = cuda::kLatentKeyDim * tensor::kv_value_bytes(shape.format());
  for (const cuda::AttentionRow& row : plan.rows) {
    if (row.num_blocks == 0) continue;
    const auto last = static_cast<size_t>(row.block_begin + row.num_blocks - 1);
    const int32_t seen = row.position - plan.block_idx[last] * shape.block_size + 1;
    for (int64_t token = seen; token < shape.block_size; ++token) {
      const auto block = cache.begin() + plan.blocks[last] * shape.block_bytes();
      std::fill_n(block + token * token_bytes, token_bytes, 0xff);  // NaN in either format
      if (shape.cache != cuda::CacheType::kE4m3) continue;
      block[shape.block_size * token_bytes + token] = 0xff;
    }
  }
}

struct Difference {
  double out = 0.0;
  double lse = 0.0;
  int64_t out_at = 0;  // where it is largest
  bool neutral_rows_agree = true;
};

Difference compare(const std::vector<float>& out, const std::vector<float>& lse,
                   const tensor::Matrix& want_out, const tensor::Matrix& want_lse) {
  Difference difference;
  for (int64_t i = 0; i < want_out.rows * want_out.cols; ++i) {
    double error = std::abs(out[static_cast<size_t>(i)] - want_out.data[i]);
    if (std::isnan(error)) error = INFINITY;
    if (error <= difference.out) continue;
    difference.out = error;
    difference.out_at = i;
  }
  for (int64_t i = 0; i < want_lse.rows * want_lse.cols; ++i) {
    const float got = lse[static_cast<size_t>(i)];
    const float want = want_lse.data[i];
    if (std::isinf(want) || std::isinf(got)) {
      difference.neutral_rows_agree = difference.neutral_rows_agree && got == want;
    } else {
      difference.lse = std::max<double>(difference.lse, std::abs(got - want));
    }
  }
  return difference;
}

bool report(const Shape& shape, int num_rows, bool remote, bool timed_out, bool layers_agree,
            const Difference& difference) {
  // Values are within [-2, 2]; weights are rounded to bf16 (2^-9) before they meet the values.
  const bool passed = difference.out < 8e-3 && difference.lse < 1e-3 &&
                      difference.neutral_rows_agree && !timed_out && layers_agree;
  const int64_t width = int64_t{shape.heads} * cuda::kLatentDim;
  std::printf(
      "check%s %s %3d heads, block %3d, %3d rows: out %.1e (row %lld, value %lld) lse %.1e%s%s "
      "%s\n",
      remote ? " late" : "", name_of(shape.cache), shape.heads, shape.block_size, num_rows,
      difference.out, static_cast<long long>(difference.out_at / width),
      static_cast<long long>(difference.out_at % width), difference.lse,
      timed_out ? " timed out" : "", layers_agree ? "" : " later layers differ",
      passed ? "ok" : "FAILED");
  return passed;
}

cuda::MlaDecodeArgs make_args(const Shape& shape, int max_rows) {
  cuda::MlaDecodeArgs args = {};
  args.config = {.num_heads = shape.heads,
                 .block_size = shape.block_size,
                 .softmax_scale = 1.0F / 24.0F,
                 .max_rows = max_rows,
                 .cache_type = shape.cache};
  args.block_stride = shape.block_bytes() / tensor::kv_value_bytes(shape.format());
  return args;
}

size_t workspace_bytes(const cuda::MlaDecodeConfig& config) {
  const auto bytes = cuda::mla_decode_workspace_bytes(config);
  if (!bytes.ok()) {
    std::fprintf(stderr, "error: %s\n", bytes.error().message.c_str());
    std::exit(1);
  }
  return *bytes;
}

void expect_ok(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  std::exit(1);
}

void run_reference(const Shape& shape, const Plan& plan, const cuda::MlaDecodeArgs& args,
                   std::vector<uint8_t>& cache, std::vector<float>& q, tensor::Matrix out,
                   tensor::Matrix lse) {
  std::vector<AttentionItem> items;
  for (const cuda::AttentionRow& row : plan.rows) {
    const auto begin = static_cast<size_t>(row.block_begin);
    const auto count = static_cast<size_t>(row.num_blocks);
    items.push_back({0, row.row, 1, row.position, 1,
                     std::span<const int32_t>(plan.blocks).subspan(begin, count),
                     std::span<const int32_t>(plan.block_idx).subspan(begin, count)});
  }
  const int64_t width = int64_t{shape.heads} * cuda::kLatentKeyDim;
  ops::paged_attention_reference(
      {.desc = {.num_heads = shape.heads,
                .num_kv_heads = 1,
                .k_dim = cuda::kLatentKeyDim,
                .v_dim = cuda::kLatentDim,
                .block_size = shape.block_size,
                .sliding_window = 0,
                .softmax_scale = args.config.softmax_scale},
       .cache = {.k = cache.data(),
                 .v = cache.data(),
                 .block_stride = args.block_stride,
                 .head_stride = int64_t{shape.block_size} * cuda::kLatentKeyDim,
                 .token_stride = cuda::kLatentKeyDim,
                 .num_blocks = static_cast<int64_t>(std::max<size_t>(1, plan.blocks.size())),
                 .format = shape.format()},
       .items = items,
       .q = {q.data(), static_cast<int64_t>(plan.rows.size()), width, width},
       .out = out,
       .lse = lse});
}

// The last half of the rows belongs to the second instance, others say in both ways that they are
// local. Poisons what the second instance sends.
void make_remote(const Shape& shape, Plan& plan, std::vector<__nv_bfloat16>& q,
                 std::vector<uint8_t>& cache) {
  const auto first_remote = static_cast<int32_t>(plan.rows.size() / 2);
  const int64_t row_size = int64_t{shape.heads} * cuda::kLatentKeyDim;
  const __nv_bfloat16 poison = __float2bfloat16(NAN);
  for (cuda::AttentionRow& row : plan.rows) {
    row.source = row.row >= first_remote ? 1 : -(row.row % 2);
    if (row.source != 1) continue;
    std::fill_n(q.begin() + row.row * row_size, row_size, poison);
    for (int32_t b = 0; b < row.num_blocks; ++b) {
      const int64_t block = plan.blocks[static_cast<size_t>(row.block_begin + b)];
      std::fill_n(cache.begin() + block * shape.block_bytes(), shape.block_bytes(), 0xff);
    }
  }
}

bool same_bits(const std::vector<float>& expected, const DeviceArray<float>& values) {
  const std::vector<float> got = values.to_host();
  return std::memcmp(got.data(), expected.data(), values.bytes()) == 0;
}

bool check_plan(const Shape& shape, Plan plan, bool remote, Random& random) {
  const auto num_rows = static_cast<int32_t>(plan.rows.size());
  cuda::MlaDecodeArgs args = make_args(shape, num_rows + 3);
  const auto rows_heads = static_cast<size_t>(num_rows * shape.heads);
  std::vector<uint8_t> cache = random_part(shape, std::max<size_t>(1, plan.blocks.size()), random);
  std::vector<__nv_bfloat16> q(rows_heads * cuda::kLatentKeyDim);
  std::vector<float> q_float;
  fill_random(q, q_float, random);
  spoil_unseen_tokens(shape, plan, cache);
  std::vector<uint8_t> all_true = cache;
  const DeviceArray<uint8_t> true_cache(cache);
  const DeviceArray<__nv_bfloat16> true_q(q);
  if (remote) make_remote(shape, plan, q, cache);
  const DeviceArray<uint8_t> device_cache(cache);
  const DeviceArray<__nv_bfloat16> device_q(q);
  const DeviceArray<cuda::AttentionRow> rows(plan.rows);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
  const DeviceArray<float> out(rows_heads * cuda::kLatentDim), lse(rows_heads);
  const DeviceArray<uint8_t> workspace(workspace_bytes(args.config));
  CHECK_CUDA(cudaMemset(workspace.data(), 0xff, workspace.bytes()));
  args.rows = rows.data();
  args.num_rows = count.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = device_q.data();
  args.cache = device_cache.data();
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  const bench::LateInstance peer;
  CHECK_CUDA(cudaDeviceSynchronize());
  if (remote) {
    peer.fill(args);
    peer.send({true_q.data(), device_q.data(), true_q.bytes(), true_cache.data(),
               device_cache.data(), true_cache.bytes()});
  }
  expect_ok(cuda::launch_mla_schedule(args, peer.own()));
  // As the layers of a step; they may count on what the one before has left in the workspace.
  std::vector<float> first_out, first_lse;
  bool layers_agree = true;
  for (int layer = 0; layer < 3; ++layer) {
    CHECK_CUDA(cudaMemsetAsync(out.data(), 0xff, out.bytes(), peer.own()));  // NaN: all is written
    CHECK_CUDA(cudaMemsetAsync(lse.data(), 0xff, lse.bytes(), peer.own()));
    expect_ok(cuda::launch_mla_decode(args, peer.own()));
    CHECK_CUDA(cudaDeviceSynchronize());
    if (layer == 0) {
      first_out = out.to_host();
      first_lse = lse.to_host();
    } else {
      layers_agree = layers_agree && same_bits(first_out, out) && same_bits(first_lse, lse);
    }
  }
  tensor::MatrixBuffer want_out, want_lse;
  const tensor::Matrix want = want_out.resize(num_rows, int64_t{shape.heads} * cuda::kLatentDim);
  const tensor::Matrix want_logs = want_lse.resize(num_rows, shape.heads);
  run_reference(shape, plan, args, all_true, q_float, want, want_logs);
  return report(shape, num_rows, remote, peer.timed_out(), layers_agree,
                compare(first_out, first_lse, want, want_logs));
}

// `heads_only`: 0 for all shapes, else those with so many.
int run_checks(int heads_only, bool is_short) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // a run that is cut short says where
  Random random(1);
  int num_failed = 0;
  const auto check_shape = [&](const Shape& shape) {
    for (const auto& [rows, tokens] : {std::pair{1, 20},
                                       {1, 3000},
                                       {1, 30000},
                                       {3, 700},
                                       {20, 300},
                                       {200, 64},
                                       {70, 250},
                                       {140, 500}}) {
      if (rows * tokens > (is_short ? 3000 : shape.heads > 40 ? 20000 : 70000)) continue;
      const Plan plan = random_plan(shape, rows, tokens, random);
      if (!check_plan(shape, plan, false, random)) ++num_failed;
      const bool is_small = rows * tokens < 20000;  // one block brings the late values
      if (rows > 1 && is_small && !check_plan(shape, plan, true, random)) ++num_failed;
    }
  };
  for (const cuda::CacheType cache : {cuda::CacheType::kE4m3, cuda::CacheType::kBf16}) {
    for (const auto& [heads, block_size] : {std::pair{16, 64},
                                            {16, 16},
                                            {32, 32},
                                            {64, 64},
                                            {64, 128},
                                            {128, 64},
                                            {128, 16},
                                            {12, 64},
                                            {16, 128},
                                            {20, 48},
                                            {40, 48},
                                            {160, 64}}) {
      if (heads_only != 0 && heads != heads_only) continue;
      check_shape(make_shape(heads, block_size, cache));
    }
  }
  std::printf("%s\n", num_failed == 0 ? "all checks passed" : "CHECKS FAILED");
  return num_failed == 0 ? 0 : 1;
}

// --- time ---

// e4m3: the same bytes as codes and as exponents, of the size that those of a model have.
__global__ void fill_kernel(uint32_t* data, size_t count, bool is_bf16) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = is_bf16 ? (noise & 0x80ff80ffU) | 0x3f003f00U  // pairs of size 0.5 to 2
                      : (noise & 0x07070707U) | 0x70707070U;
  }
}

// Stands between the layers as the kernels between them do in a step: begins when the layer before
// has ended, and lets the next one begin.
struct NoArgs {};
__global__ void between_layers_kernel(const __grid_constant__ NoArgs /*args*/) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}

struct TimedCase {
  int heads;
  std::vector<std::pair<int, int>> rows;  // how many, tokens each
};

// Rows of whole sequences, with the blocks anywhere; returns the number of tokens.
int64_t fill_plan(const TimedCase& c, const Shape& shape, Plan& plan) {
  int64_t tokens = 0;
  for (const auto& [count, length] : c.rows) {
    for (int i = 0; i < count; ++i) {
      const auto begin = static_cast<int32_t>(plan.blocks.size());
      for (int32_t b = 0; b * shape.block_size < length; ++b) {
        plan.block_idx.push_back(b);
        plan.blocks.push_back(static_cast<int32_t>(plan.blocks.size()));
      }
      plan.rows.push_back({static_cast<int32_t>(plan.rows.size()), length - 1, begin,
                           static_cast<int32_t>(plan.blocks.size()) - begin, -1});
      tokens += length;
    }
  }
  Random random(3);
  shuffle_blocks(plan, random);
  return tokens;
}

void time_case(const TimedCase& c, cuda::CacheType cache, const DeviceArray<uint32_t>& memory,
               double read_gb_per_s) {
  const Shape shape = make_shape(c.heads, 64, cache);
  Plan plan;
  const auto tokens = static_cast<double>(fill_plan(c, shape, plan));
  const auto num_rows = static_cast<int32_t>(plan.rows.size());
  cuda::MlaDecodeArgs args = make_args(shape, num_rows);
  const DeviceArray<cuda::AttentionRow> rows(plan.rows);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
  const auto rows_heads = static_cast<size_t>(num_rows * shape.heads);
  const DeviceArray<float> out(rows_heads * cuda::kLatentDim), lse(rows_heads);
  const DeviceArray<uint8_t> workspace(workspace_bytes(args.config));
  const size_t all = plan.blocks.size() * static_cast<size_t>(shape.block_bytes());
  const size_t copies = std::max<size_t>(1, memory.bytes() / all);
  args.rows = rows.data();
  args.num_rows = count.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = memory.data();
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  const auto* base = reinterpret_cast<const uint8_t*>(memory.data());
  const double schedule_us = bench::time_in_graph(
      24, [&](int, cudaStream_t stream) { expect_ok(cuda::launch_mla_schedule(args, stream)); });
  const auto time_layer = [&](bool kernel_between) {
    return bench::time_in_graph(c.heads > 16 ? 6 : 24, [&](int i, cudaStream_t stream) {
      args.cache = base + static_cast<size_t>(i) % copies * all;
      expect_ok(cuda::launch_mla_decode(args, stream));
      if (!kernel_between) return;
      expect_ok(cuda::launch_overlapped(between_layers_kernel, dim3(1), 32, NoArgs(), stream,
                                        "the kernel between layers"));
    });
  };
  const double us = time_layer(false);
  const double us_with_kernel = time_layer(true);
  const double gb_per_s =
      tokens * static_cast<double>(tensor::kv_token_bytes(shape.format(), shape.dim)) / us / 1e3;
  const double tflops = 2 * c.heads * tokens * (cuda::kLatentKeyDim + cuda::kLatentDim) / us / 1e6;
  std::printf("time  %s %3d heads:", name_of(cache), c.heads);
  for (const auto& [n, length] : c.rows) std::printf(" %d x %d", n, length);
  std::printf(
      ": %.1f us, %.0f GB/s (%.1f %% of read), %.0f TFLOP/s, with a kernel between %.1f us, "
      "schedule %.1f us\n",
      us, gb_per_s, 100 * gb_per_s / read_gb_per_s, tflops, us_with_kernel, schedule_us);
}

// `heads_only`: as in run_checks.
int run_times(int heads_only) {
  const DeviceArray<uint32_t> memory(size_t{1} << 30);  // 4 GiB
  fill_kernel<<<2048, 256>>>(memory.data(), memory.bytes() / 4, true);
  CHECK_CUDA(cudaDeviceSynchronize());
  const DeviceArray<uint32_t> sink(1);
  const size_t part = memory.bytes() / 8;
  const double read_us = bench::time_in_graph(8, [&](int i, cudaStream_t stream) {
    const auto* data =
        reinterpret_cast<const uint4*>(memory.data()) + static_cast<size_t>(i) * part / 16;
    bench::read_kernel<<<132 * 16, 512, 0, stream>>>(data, part / 16, sink.data());
  });
  const double read = static_cast<double>(part) / read_us / 1e3;
  std::printf("read bandwidth %.0f GB/s\n", read);
  for (const cuda::CacheType cache : {cuda::CacheType::kBf16, cuda::CacheType::kE4m3}) {
    fill_kernel<<<2048, 256>>>(memory.data(), memory.bytes() / 4, cache == cuda::CacheType::kBf16);
    for (const TimedCase& c :
         {TimedCase{16, {{64, 4096}}}, TimedCase{16, {{1, 131072}}}, TimedCase{16, {{128, 1024}}},
          TimedCase{16, {{63, 2048}, {1, 262144}}}, TimedCase{32, {{64, 4096}}},
          TimedCase{32, {{1, 131072}}}, TimedCase{64, {{64, 4096}}}, TimedCase{128, {{64, 4096}}},
          TimedCase{128, {{128, 8192}}}}) {
      if (heads_only == 0 || c.heads == heads_only) time_case(c, cache, memory, read);
    }
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  const char* what = argc == 2 || argc == 3 ? argv[1] : "";
  const int heads = argc == 3 ? std::atoi(argv[2]) : 0;
  if (std::strcmp(what, "--check") == 0) return nanocp::run_checks(heads, false);
  if (std::strcmp(what, "--check-short") == 0) return nanocp::run_checks(heads, true);
  if (std::strcmp(what, "--time") == 0) return nanocp::run_times(heads);
  std::fprintf(stderr,
               "usage: %s --check [HEADS] | --check-short [HEADS] (for sanitizers) | --time "
               "[HEADS]\n",
               argv[0]);
  return 1;
}
