// Latent prefill attention on one GPU: `--check` compares random chunks and shards with the plain
// reference, also where chunks of another instance come late, and long ones with the decode kernel;
// `--time` measures chunks of one sequence by their products, beside the same rows in the decode
// kernel.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "backend/cuda/mla_decode.h"
#include "backend/cuda/mla_prefill.h"
#include "base/random.h"
#include "bench/kernels/cuda_attention_bench_data.h"
#include "bench/kernels/cuda_device_array.h"
#include "bench/kernels/cuda_late_instance.cuh"
#include "ops/attention.h"

namespace nanocp {
namespace {

constexpr float kScale = 1.0F / 24.0F;

using cuda::CacheType;

Shape make_shape(int heads, int block_size, CacheType cache) {
  return {heads, 1, cuda::kLatentKeyDim, block_size, 0, cache};
}

const char* name_of(CacheType cache) {
  return cache == CacheType::kBf16 ? "bf16" : "fp8";
}

void expect_ok(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "error: %s\n", status.error().message.c_str());
  std::exit(1);
}

size_t expect_bytes(const Result<size_t>& bytes) {
  if (!bytes.ok()) expect_ok(bytes.error());
  return *bytes;
}

// A plan in device memory, with room for the results of both kernels.
class Launches {
 public:
  Launches(const Shape& shape, const Plan& plan, const void* q, const void* cache)
      : rows_(plan.rows),
        items_(plan.items),
        blocks_(plan.blocks),
        block_idx_(plan.block_idx),
        counts_(std::vector<int32_t>{static_cast<int32_t>(plan.rows.size()),
                                     static_cast<int32_t>(plan.items.size())}),
        out_(plan.rows.size() * static_cast<size_t>(shape.heads * cuda::kLatentDim)),
        lse_(plan.rows.size() * static_cast<size_t>(shape.heads)),
        decode_(decode_args(shape, plan, q, cache)),
        prefill_(prefill_args(plan)),
        workspace_(std::max(expect_bytes(cuda::mla_decode_workspace_bytes(decode_.config)),
                            expect_bytes(cuda::mla_prefill_workspace_bytes(prefill_.config)))) {
    decode_.workspace = workspace_.data();
    prefill_.workspace = workspace_.data();
  }

  // NaN: every value must be written.
  void clear() {
    CHECK_CUDA(cudaMemset(out_.data(), 0xff, out_.bytes()));
    CHECK_CUDA(cudaMemset(lse_.data(), 0xff, lse_.bytes()));
    CHECK_CUDA(cudaMemset(workspace_.data(), 0xff, workspace_.bytes()));
    CHECK_CUDA(cudaDeviceSynchronize());
  }
  void run_prefill(cudaStream_t stream) {
    expect_ok(cuda::launch_mla_prefill_schedule(prefill_, stream));
    expect_ok(cuda::launch_mla_prefill(prefill_, stream));
    CHECK_CUDA(cudaDeviceSynchronize());
  }
  void wait_for(const bench::LateInstance& instance) { instance.fill(prefill_); }
  void run_decode() {
    expect_ok(cuda::launch_mla_schedule(decode_, nullptr));
    expect_ok(cuda::launch_mla_decode(decode_, nullptr));
    CHECK_CUDA(cudaDeviceSynchronize());
  }
  const cuda::MlaDecodeArgs& decode() const { return decode_; }
  const cuda::MlaPrefillArgs& prefill() const { return prefill_; }
  std::vector<float> out() const { return out_.to_host(); }
  std::vector<float> lse() const { return lse_.to_host(); }

 private:
  cuda::MlaDecodeArgs decode_args(const Shape& shape, const Plan& plan, const void* q,
                                  const void* cache) const {
    cuda::MlaDecodeArgs args = {};
    args.config = {.num_heads = shape.heads,
                   .block_size = shape.block_size,
                   .softmax_scale = kScale,
                   .max_rows = static_cast<int32_t>(plan.rows.size()) + 3,
                   .cache_type = shape.cache};
    args.rows = rows_.data();
    args.num_rows = counts_.data();
    args.blocks = blocks_.data();
    args.block_idx = block_idx_.data();
    args.q = q;
    args.cache = cache;
    args.block_stride = shape.block_bytes() / tensor::kv_value_bytes(shape.format());
    args.out = out_.data();
    args.lse = lse_.data();
    return args;
  }
  cuda::MlaPrefillArgs prefill_args(const Plan& plan) const {
    cuda::MlaPrefillArgs args = {};
    args.config = {.num_heads = decode_.config.num_heads,
                   .block_size = decode_.config.block_size,
                   .softmax_scale = kScale,
                   .max_rows = decode_.config.max_rows,
                   .cache_type = decode_.config.cache_type};
    args.items = items_.data();
    args.num_items = counts_.data() + 1;
    args.blocks = blocks_.data();
    args.block_idx = block_idx_.data();
    args.q = decode_.q;
    args.q_rows = static_cast<int64_t>(plan.rows.size());
    args.cache = decode_.cache;
    args.block_stride = decode_.block_stride;
    args.out = out_.data();
    args.lse = lse_.data();
    return args;
  }

  DeviceArray<cuda::AttentionRow> rows_;
  DeviceArray<cuda::PrefillItem> items_;
  DeviceArray<int32_t> blocks_;
  DeviceArray<int32_t> block_idx_;
  DeviceArray<int32_t> counts_;
  DeviceArray<float> out_;
  DeviceArray<float> lse_;
  cuda::MlaDecodeArgs decode_;
  cuda::MlaPrefillArgs prefill_;
  DeviceArray<uint8_t> workspace_;
};

// --- check ---

struct Difference {
  double out = 0.0;
  double lse = 0.0;
  size_t out_at = 0;  // where it is largest
  bool neutral_rows_agree = true;

  // Values are within [-2, 2]; weights are rounded to bf16 (2^-9) before they meet the values.
  bool passes() const { return out < 8e-3 && lse < 1e-3 && neutral_rows_agree; }
};

Difference compare(const Launches& got, std::span<const float> want_out,
                   std::span<const float> want_lse) {
  Difference difference;
  const std::vector<float> out = got.out();
  const std::vector<float> lse = got.lse();
  for (size_t i = 0; i < out.size(); ++i) {
    double error = std::abs(out[i] - want_out[i]);
    if (std::isnan(error)) error = INFINITY;
    if (error <= difference.out) continue;
    difference.out = error;
    difference.out_at = i;
  }
  for (size_t i = 0; i < lse.size(); ++i) {
    if (std::isinf(want_lse[i]) || std::isinf(lse[i]) || std::isnan(lse[i])) {
      difference.neutral_rows_agree = difference.neutral_rows_agree && lse[i] == want_lse[i];
    } else {
      difference.lse = std::max<double>(difference.lse, std::abs(lse[i] - want_lse[i]));
    }
  }
  return difference;
}

bool report(const char* against, const Shape& shape, const Plan& plan, const Difference& d) {
  const size_t row_values = static_cast<size_t>(shape.heads * cuda::kLatentDim);
  std::printf(
      "check %s against %s, %3d heads, block %3d, %2zu chunks of %4zu rows: out %.1e (row %zu, "
      "value %zu) lse %.1e%s %s\n",
      name_of(shape.cache), against, shape.heads, shape.block_size, plan.items.size(),
      plan.rows.size(), d.out, d.out_at / row_values, d.out_at % row_values, d.lse,
      d.neutral_rows_agree ? "" : ", neutral rows differ", d.passes() ? "ok" : "FAILED");
  return d.passes();
}

void run_reference(const Shape& shape, const Plan& plan, std::vector<uint8_t>& cache,
                   std::vector<float>& q, tensor::Matrix out, tensor::Matrix lse) {
  std::vector<AttentionItem> items;
  for (const cuda::PrefillItem& item : plan.items) {
    const auto begin = static_cast<size_t>(item.block_begin);
    const auto count = static_cast<size_t>(item.num_blocks);
    items.push_back({0, item.row_begin, item.num_rows, item.first_position, 1,
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
                .softmax_scale = kScale},
       .cache = {.k = cache.data(),
                 .v = cache.data(),
                 .block_stride = shape.block_bytes() / tensor::kv_value_bytes(shape.format()),
                 .head_stride = int64_t{shape.block_size} * cuda::kLatentKeyDim,
                 .token_stride = cuda::kLatentKeyDim,
                 .num_blocks = static_cast<int64_t>(std::max<size_t>(1, plan.blocks.size())),
                 .format = shape.format()},
       .items = items,
       .q = {q.data(), static_cast<int64_t>(plan.rows.size()), width, width},
       .out = out,
       .lse = lse});
}

struct Chunks {
  int count, max_rows, max_tokens;
};

// The second half of the chunks belongs to the second instance; poisons what it sends.
void make_remote(const Shape& shape, Plan& plan, std::vector<__nv_bfloat16>& q,
                 std::vector<uint8_t>& cache) {
  const __nv_bfloat16 poison = __ushort_as_bfloat16(0xffff);
  const auto row_size = static_cast<ptrdiff_t>(shape.heads * cuda::kLatentKeyDim);
  for (size_t i = 0; i < plan.items.size(); ++i) {
    cuda::PrefillItem& item = plan.items[i];
    item.source = i >= plan.items.size() / 2 ? 1 : 0;
    if (item.source == 0) continue;
    std::fill_n(q.begin() + item.row_begin * row_size, item.num_rows * row_size, poison);
    for (int32_t b = 0; b < item.num_blocks; ++b) {
      const int32_t block = plan.blocks[static_cast<size_t>(item.block_begin + b)];
      std::fill_n(cache.begin() + block * shape.block_bytes(), shape.block_bytes(), 0xff);
    }
  }
}

bool check_shape(const Shape& shape, const Chunks& chunks, bool is_late, Random& random) {
  Plan plan = random_chunks(shape, chunks.count, chunks.max_rows, chunks.max_tokens, random);
  const auto num_rows = static_cast<int64_t>(plan.rows.size());
  std::vector<uint8_t> cache = random_part(shape, std::max<size_t>(1, plan.blocks.size()), random);
  std::vector<uint8_t> all_true = cache;
  std::vector<__nv_bfloat16> q(plan.rows.size() *
                               static_cast<size_t>(shape.heads * cuda::kLatentKeyDim));
  std::vector<float> q_float;
  fill_random(q, q_float, random);
  const DeviceArray<uint8_t> true_cache(cache);
  const DeviceArray<__nv_bfloat16> true_q(q);
  if (is_late) make_remote(shape, plan, q, cache);
  const DeviceArray<uint8_t> device_cache(cache);
  const DeviceArray<__nv_bfloat16> device_q(q);
  Launches launches(shape, plan, device_q.data(), device_cache.data());
  launches.clear();
  const bench::LateInstance instance;
  if (is_late) {
    launches.wait_for(instance);
    instance.send({true_q.data(), device_q.data(), true_q.bytes(), true_cache.data(),
                   device_cache.data(), true_cache.bytes()});
  }
  launches.run_prefill(instance.own());
  tensor::MatrixBuffer want_out, want_lse;
  const tensor::Matrix out = want_out.resize(num_rows, int64_t{shape.heads} * cuda::kLatentDim);
  const tensor::Matrix lse = want_lse.resize(num_rows, shape.heads);
  run_reference(shape, plan, all_true, q_float, out, lse);
  const bool passed = report(is_late ? "reference, late" : "reference", shape, plan,
                             compare(launches, {out.data, static_cast<size_t>(out.rows * out.cols)},
                                     {lse.data, static_cast<size_t>(lse.rows * lse.cols)}));
  if (instance.timed_out()) std::printf("  a wait TIMED OUT\n");
  return passed && !instance.timed_out();
}

__global__ void fill_kernel(uint32_t* data, size_t count) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = (noise & 0x80ff80ffU) | 0x3f003f00U;  // bf16 pairs of size 0.5 to 2
  }
}

void fill(const DeviceArray<uint32_t>& memory) {
  fill_kernel<<<2048, 256>>>(memory.data(), memory.bytes() / 4);
  CHECK_CUDA(cudaDeviceSynchronize());
}

bool check_long(const Shape& shape, const Chunks& chunks, Random& random) {
  const Plan plan = random_chunks(shape, chunks.count, chunks.max_rows, chunks.max_tokens, random);
  const DeviceArray<uint32_t> q(plan.rows.size() *
                                static_cast<size_t>(shape.heads * cuda::kLatentKeyDim / 2));
  const DeviceArray<uint8_t> cache(
      random_part(shape, std::max<size_t>(1, plan.blocks.size()), random));
  fill(q);
  Launches launches(shape, plan, q.data(), cache.data());
  launches.clear();
  launches.run_decode();
  const std::vector<float> want_out = launches.out();
  const std::vector<float> want_lse = launches.lse();
  launches.clear();
  launches.run_prefill(nullptr);
  return report("decode", shape, plan, compare(launches, want_out, want_lse));
}

int run_checks(bool is_short) {
  Random random(1);
  int num_failed = 0;
  const auto count = [&](bool passed) { num_failed += passed ? 0 : 1; };
  for (const CacheType cache : {CacheType::kE4m3, CacheType::kBf16}) {
    for (const auto& [heads, block_size] :
         {std::pair{16, 64}, {16, 16}, {32, 32}, {128, 64}, {128, 16}, {12, 128}, {40, 48}}) {
      const Shape shape = make_shape(heads, block_size, cache);
      const int rows = std::max(6, 400 / shape.heads);
      for (const Chunks& chunks : {Chunks{1, rows, 20}, Chunks{1, rows, is_short ? 300 : 1500},
                                   Chunks{5, rows / 2, 200}, Chunks{9, 3, 150}}) {
        count(check_shape(shape, chunks, false, random));
      }
      count(check_shape(shape, {6, rows / 2, 200}, true, random));
    }
    if (is_short) continue;
    for (const auto& [heads, block_size] : {std::pair{16, 64}, {128, 16}, {128, 64}}) {
      const Shape shape = make_shape(heads, block_size, cache);
      count(check_long(shape, {1, 40, 30000}, random));
      count(check_long(shape, {3, 700, 3000}, random));
      count(check_long(shape, {20, 100, 500}, random));
    }
  }
  std::printf("%s\n", num_failed == 0 ? "all checks passed" : "CHECKS FAILED");
  return num_failed == 0 ? 0 : 1;
}

// --- time ---

// A chunk of `count` tokens after `first` others, all of them here.
Plan chunk_plan(int block_size, int32_t first, int32_t count) {
  Plan plan;
  for (int32_t i = 0; i * block_size < first + count; ++i) {
    plan.block_idx.push_back(i);
    plan.blocks.push_back(i);
  }
  const auto num_blocks = static_cast<int32_t>(plan.blocks.size());
  plan.items.push_back({0, count, first, 0, num_blocks, -1});
  for (int32_t i = 0; i < count; ++i) plan.rows.push_back({i, first + i, 0, num_blocks, -1});
  Random random(3);
  shuffle_blocks(plan, random);
  return plan;
}

void time_chunk(int heads, CacheType cache, int32_t first, int32_t count,
                const DeviceArray<uint32_t>& memory) {
  const Shape shape = make_shape(heads, 64, cache);
  const Plan plan = chunk_plan(shape.block_size, first, count);
  const size_t q_words = static_cast<size_t>(count) * heads * cuda::kLatentKeyDim / 2;
  Launches launches(shape, plan, memory.data(), memory.data() + q_words);
  const double schedule_us = bench::time_in_graph(4, [&](int, cudaStream_t stream) {
    expect_ok(cuda::launch_mla_prefill_schedule(launches.prefill(), stream));
  });
  const double us = bench::time_in_graph(count > 4096 ? 1 : 4, [&](int, cudaStream_t stream) {
    expect_ok(cuda::launch_mla_prefill(launches.prefill(), stream));
  });
  const double pairs = count * (first + (count + 1) / 2.0);  // of a row and a token that it sees
  const double flop = 2.0 * heads * pairs * (cuda::kLatentKeyDim + cuda::kLatentDim);
  std::printf(
      "time  %s %3d heads, %4d tokens from %5d on: %9.1f us, %4.0f TFLOP/s, schedule %.1f us",
      name_of(cache), heads, count, first, us, flop / us / 1e6, schedule_us);
  if (count <= 512) {  // more take long and show the same rate
    launches.run_decode();
    const double decode_us = bench::time_in_graph(1, [&](int, cudaStream_t stream) {
      expect_ok(cuda::launch_mla_decode(launches.decode(), stream));
    });
    std::printf("; decode kernel %.1f us, %.0f TFLOP/s", decode_us, flop / decode_us / 1e6);
  }
  std::printf("\n");
  std::fflush(stdout);
}

int run_times() {
  const DeviceArray<uint32_t> memory(size_t{1} << 29);  // 2 GiB
  fill(memory);
  for (const int heads : {128, 16}) {
    for (const int32_t first : {0, 32768}) {
      for (const int32_t count : {8, 32, 128, 512, 2048, 8192}) {
        for (const CacheType cache : {CacheType::kBf16, CacheType::kE4m3}) {
          time_chunk(heads, cache, first, count, memory);
        }
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::run_checks(false);
  if (argc == 2 && std::strcmp(argv[1], "--check-short") == 0) return nanocp::run_checks(true);
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::run_times();
  std::fprintf(stderr, "usage: %s --check | --check-short (for sanitizers) | --time\n", argv[0]);
  return 1;
}
