// Decode and prefill attention on one GPU: `--check` compares random shards with the plain
// reference, also with rows of another instance whose values and flag come late; `--time` measures
// the cases that docs/benchmarks names against the read bandwidth of the same run. Times are of one
// layer and of an empty kernel behind it, as layers of a step do not overlap, inside a CUDA graph
// that goes round several copies of the cache, so that none of it is in the second-level cache; the
// schedule, once per step, is timed apart.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/attention_prefill.h"
#include "backend/cuda/launch_overlapped.h"
#include "base/random.h"
#include "bench/kernels/cuda_attention_bench_data.h"
#include "bench/kernels/cuda_late_instance.cuh"
#include "bench/kernels/cuda_read_kernel.cuh"
#include "ops/attention.h"

namespace nanocp {
namespace {

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

cuda::AttentionDecodeArgs make_args(const Shape& shape, int max_rows) {
  cuda::AttentionDecodeArgs args = {};
  args.config = {.num_heads = shape.heads,
                 .num_kv_heads = shape.kv_heads,
                 .head_dim = shape.dim,
                 .block_size = shape.block_size,
                 .sliding_window = shape.window,
                 .softmax_scale = 1.0F / std::sqrt(static_cast<float>(shape.dim)),
                 .max_rows = max_rows,
                 .cache_type = shape.cache};
  args.head_stride = int64_t{shape.block_size} * shape.dim;
  args.block_stride = shape.block_bytes() / tensor::kv_value_bytes(shape.format());
  return args;
}

size_t workspace_bytes(const cuda::AttentionDecodeConfig& config) {
  const auto bytes = cuda::attention_decode_workspace_bytes(config);
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

void schedule(const cuda::AttentionDecodeArgs& args, cudaStream_t stream) {
  expect_ok(cuda::launch_attention_schedule(args, stream));
}

void attend(const cuda::AttentionDecodeArgs& args, cudaStream_t stream) {
  expect_ok(cuda::launch_attention_decode(args, stream));
}

void run_reference(const Shape& shape, const Plan& plan, const cuda::AttentionDecodeArgs& args,
                   std::vector<uint8_t>& kv, std::vector<float>& q, tensor::Matrix out,
                   tensor::Matrix lse) {
  const auto half = static_cast<int64_t>(kv.size() / 2);
  std::vector<AttentionItem> items;
  for (const cuda::AttentionRow& row : plan.rows) {
    const auto begin = static_cast<size_t>(row.block_begin);
    const auto count = static_cast<size_t>(row.num_blocks);
    items.push_back({0, row.row, 1, row.position, 1,
                     std::span<const int32_t>(plan.blocks).subspan(begin, count),
                     std::span<const int32_t>(plan.block_idx).subspan(begin, count)});
  }
  const int64_t width = int64_t{shape.heads} * shape.dim;
  const auto rows = static_cast<int64_t>(plan.rows.size());
  ops::paged_attention_reference(
      {.desc = {.num_heads = shape.heads,
                .num_kv_heads = shape.kv_heads,
                .k_dim = shape.dim,
                .v_dim = shape.dim,
                .block_size = shape.block_size,
                .sliding_window = shape.window,
                .softmax_scale = args.config.softmax_scale},
       .cache = {.k = kv.data(),
                 .v = kv.data() + half,
                 .block_stride = args.block_stride,
                 .head_stride = args.head_stride,
                 .token_stride = shape.dim,
                 .num_blocks = static_cast<int64_t>(std::max<size_t>(1, plan.blocks.size())),
                 .format = shape.format()},
       .items = items,
       .q = {q.data(), rows, width, width},
       .out = out,
       .lse = lse});
}

// The last rows (or chunks) belong to the second instance, others say in both ways that they are
// local. Poisons what the second instance sends.
void make_remote(const Shape& shape, Plan& plan, std::vector<__nv_bfloat16>& q,
                 std::vector<uint8_t>& kv) {
  const __nv_bfloat16 poison = __ushort_as_bfloat16(0xffff);
  const auto first_remote = plan.items.empty() ? static_cast<int32_t>(plan.rows.size() / 2)
                                               : plan.items[plan.items.size() / 2].row_begin;
  for (cuda::PrefillItem& item : plan.items) item.source = item.row_begin >= first_remote ? 1 : 0;
  const size_t row_size = static_cast<size_t>(shape.heads) * shape.dim;
  const auto block_size = static_cast<size_t>(shape.block_bytes());
  for (cuda::AttentionRow& row : plan.rows) {
    row.source = row.row >= first_remote ? 1 : -(row.row % 2);
    if (row.source != 1) continue;
    std::fill_n(q.begin() + static_cast<ptrdiff_t>(row.row * row_size), row_size, poison);
    for (int32_t b = 0; b < row.num_blocks; ++b) {
      const auto block = static_cast<size_t>(plan.blocks[row.block_begin + b]);
      for (const size_t at : {block * block_size, kv.size() / 2 + block * block_size}) {
        std::fill_n(kv.begin() + static_cast<ptrdiff_t>(at), block_size, uint8_t{0xff});
      }
    }
  }
}

cuda::AttentionPrefillArgs prefill_args(const cuda::AttentionDecodeArgs& args,
                                        const cuda::PrefillItem* items, const int32_t* num_items) {
  return {.config = args.config,
          .items = items,
          .num_items = num_items,
          .blocks = args.blocks,
          .block_idx = args.block_idx,
          .q = args.q,
          .k = args.k,
          .v = args.v,
          .block_stride = args.block_stride,
          .head_stride = args.head_stride,
          .out = args.out,
          .lse = args.lse,
          .exchange = args.exchange,
          .epoch = args.epoch};
}

bool report(const Shape& shape, const Plan& plan, bool remote, bool timed_out,
            const Difference& difference) {
  // Values are within [-2, 2]; weights are rounded to bf16 (2^-9) before they meet V.
  const bool passed =
      difference.out < 8e-3 && difference.lse < 1e-3 && difference.neutral_rows_agree && !timed_out;
  const int64_t width = int64_t{shape.heads} * shape.dim;
  std::printf(
      "check %s %s%s %3d/%d heads x %3d, block %3d, window %4d, %3zu rows: out %.1e (row %lld, "
      "value %lld) lse %.1e%s %s\n",
      plan.items.empty() ? "decode" : "prefill", tensor::to_string(shape.format()),
      remote ? " late" : "", shape.heads, shape.kv_heads, shape.dim, shape.block_size, shape.window,
      plan.rows.size(), difference.out, static_cast<long long>(difference.out_at / width),
      static_cast<long long>(difference.out_at % width), difference.lse,
      timed_out ? " timed out" : "", passed ? "ok" : "FAILED");
  return passed;
}

// Decode attention of the plan's rows, or prefill attention where it has items.
bool check_plan(const Shape& shape, Plan plan, bool remote, Random& random) {
  const auto num_rows = static_cast<int32_t>(plan.rows.size());
  cuda::AttentionDecodeArgs args = make_args(shape, num_rows + 3);
  std::vector<uint8_t> kv = random_cache(shape, std::max<size_t>(1, plan.blocks.size()), random);
  std::vector<uint8_t> reference_kv = kv;
  std::vector<__nv_bfloat16> q(static_cast<size_t>(num_rows * shape.heads * shape.dim));
  std::vector<float> q_float;
  fill_random(q, q_float, random);
  const DeviceArray<uint8_t> true_kv(kv);
  const DeviceArray<__nv_bfloat16> true_q(q);
  if (remote) make_remote(shape, plan, q, kv);
  const DeviceArray<uint8_t> device_kv(kv);
  const DeviceArray<__nv_bfloat16> device_q(q);
  const DeviceArray<cuda::AttentionRow> rows(plan.rows);
  const DeviceArray<cuda::PrefillItem> items(plan.items);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> counts(
      std::vector<int32_t>{num_rows, static_cast<int32_t>(plan.items.size())});
  const DeviceArray<float> out(q.size()), lse(static_cast<size_t>(num_rows * shape.heads));
  const DeviceArray<uint8_t> workspace(workspace_bytes(args.config));
  CHECK_CUDA(cudaMemset(out.data(), 0xff, out.bytes()));  // NaN: every value must be written
  CHECK_CUDA(cudaMemset(lse.data(), 0xff, lse.bytes()));
  args.rows = rows.data();
  args.num_rows = counts.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = device_q.data();
  args.k = device_kv.data();
  args.v = device_kv.data() + kv.size() / 2;
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  const bench::LateInstance instances;
  CHECK_CUDA(cudaDeviceSynchronize());
  if (remote) {
    instances.fill(args);
    instances.send({true_q.data(), device_q.data(), true_q.bytes(), true_kv.data(),
                    device_kv.data(), kv.size()});
  }
  if (plan.items.empty()) {
    schedule(args, instances.own());
    attend(args, instances.own());
  } else {
    expect_ok(cuda::launch_attention_prefill(prefill_args(args, items.data(), counts.data() + 1),
                                             instances.own()));
  }
  CHECK_CUDA(cudaDeviceSynchronize());
  tensor::MatrixBuffer want_out, want_lse;
  const tensor::Matrix want = want_out.resize(num_rows, int64_t{shape.heads} * shape.dim);
  const tensor::Matrix want_logs = want_lse.resize(num_rows, shape.heads);
  run_reference(shape, plan, args, reference_kv, q_float, want, want_logs);
  const Difference difference = compare(out.to_host(), lse.to_host(), want, want_logs);
  return report(shape, plan, remote, instances.timed_out(), difference);
}

int run_checks() {
  Random random(1);
  int num_failed = 0;
  constexpr auto kE4m3 = cuda::CacheType::kE4m3;
  for (const Shape& shape :
       {Shape{32, 4, 128, 64, 0}, Shape{64, 8, 64, 64, 0}, Shape{64, 8, 64, 64, 128},
        Shape{16, 2, 128, 16, 0}, Shape{16, 1, 128, 32, 100}, Shape{8, 8, 64, 128, 0},
        Shape{96, 8, 128, 64, 0}, Shape{5, 1, 64, 48, 33}, Shape{32, 4, 128, 64, 0, kE4m3},
        Shape{64, 8, 64, 64, 0, kE4m3}, Shape{64, 8, 64, 64, 128, kE4m3},
        Shape{16, 1, 128, 32, 100, kE4m3}, Shape{96, 8, 128, 64, 0, kE4m3},
        Shape{5, 1, 64, 48, 33, kE4m3}}) {
    for (const auto& [rows, tokens] :
         {std::pair{1, 20}, {1, 3000}, {1, 40000}, {3, 700}, {40, 900}, {300, 64}}) {
      if (tokens > 3000 && shape.kv_heads > 1) continue;  // a segment in more than 64 parts
      const Plan plan = random_plan(shape, rows, tokens, random);
      if (!check_plan(shape, plan, false, random)) ++num_failed;
      if (rows > 1 && !check_plan(shape, plan, true, random)) ++num_failed;
    }
    for (const auto& [chunks, rows, tokens] :
         {std::tuple{1, 3, 0}, {1, 200, 0}, {4, 40, 400}, {7, 9, 90}}) {
      const Plan plan = random_chunks(shape, chunks, rows, tokens, random);
      if (!check_plan(shape, plan, false, random)) ++num_failed;
      if (chunks > 1 && !check_plan(shape, plan, true, random)) ++num_failed;
    }
  }
  std::printf("%s\n", num_failed == 0 ? "all checks passed" : "CHECKS FAILED");
  return num_failed == 0 ? 0 : 1;
}

// --- time
// -----------------------------------------------------------------------------------------

// Bytes that are codes and exponents alike: 1 to 1.875 times 2^7, 2^-15 to 2^-8.
__global__ void fill_codes_kernel(uint32_t* data, size_t count) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    data[i] = ((static_cast<uint32_t>(i) * 2654435761U) & 0x07070707U) | 0x70707070U;
  }
}

__global__ void fill_kernel(uint32_t* data, size_t count) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = (noise & 0x80ff80ffU) | 0x3f003f00U;  // bf16 pairs of size 0.5 to 2
  }
}

// Stands between the layers of a benchmark as the kernels between them do in a step: begins when
// the layer before has ended, and lets the next one begin.
struct NoArgs {};
__global__ void between_layers_kernel(const __grid_constant__ NoArgs /*args*/) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
}

struct TimedCase {
  const char* name;
  Shape shape;
  std::vector<std::pair<int, int>> rows;  // how many, tokens each
};

double time_case(const TimedCase& c, const DeviceArray<uint32_t>& memory,
                 const DeviceArray<uint32_t>& queries, double read_gb_per_s) {
  const Shape& shape = c.shape;
  Plan plan;
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
  const auto num_rows = static_cast<int32_t>(plan.rows.size());
  Random random(3);
  for (size_t i = plan.blocks.size(); i > 1; --i)
    std::swap(plan.blocks[i - 1], plan.blocks[random.below(i)]);
  cuda::AttentionDecodeArgs args = make_args(shape, num_rows);
  const DeviceArray<cuda::AttentionRow> rows(plan.rows);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
  const DeviceArray<float> out(static_cast<size_t>(num_rows * shape.heads * shape.dim));
  const DeviceArray<float> lse(static_cast<size_t>(num_rows * shape.heads));
  const DeviceArray<uint8_t> workspace(workspace_bytes(args.config));
  const size_t half = plan.blocks.size() * static_cast<size_t>(shape.block_bytes());
  const size_t copies = std::max<size_t>(1, memory.bytes() / (2 * half));
  args.rows = rows.data();
  args.num_rows = count.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = queries.data();
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  const auto* base = reinterpret_cast<const uint8_t*>(memory.data());
  const double schedule_us =
      bench::time_in_graph(24, [&](int, cudaStream_t stream) { schedule(args, stream); });
  const double us = bench::time_in_graph(24, [&](int i, cudaStream_t stream) {
    const size_t copy = static_cast<size_t>(i) % copies;
    args.k = base + copy * 2 * half;
    args.v = base + copy * 2 * half + half;
    attend(args, stream);
    expect_ok(cuda::launch_overlapped(between_layers_kernel, dim3(1), 32, NoArgs(), stream,
                                      "the kernel between layers"));
  });
  const double bytes = 2.0 * static_cast<double>(tokens) * shape.kv_heads *
                       static_cast<double>(tensor::kv_token_bytes(shape.format(), shape.dim));
  const double gb_per_s = bytes / us / 1e3;
  std::printf("time  %-5s%-40s %8.1f us %7.0f GB/s %5.1f %% of read, schedule %4.1f us\n",
              tensor::to_string(shape.format()), c.name, us, gb_per_s,
              100 * gb_per_s / read_gb_per_s, schedule_us);
  return us;
}

// One chunk of `count` tokens from position `first` on, with all KV before it here.
void time_prefill(const Shape& shape, int32_t first, int32_t count,
                  const DeviceArray<uint32_t>& memory, const DeviceArray<uint32_t>& queries) {
  Plan plan;
  for (int32_t b = 0; b * shape.block_size < first + count; ++b) {
    plan.block_idx.push_back(b);
    plan.blocks.push_back(b);
  }
  Random random(3);
  shuffle_blocks(plan, random);
  const auto num_blocks = static_cast<int32_t>(plan.blocks.size());
  plan.items.push_back({0, count, first, 0, num_blocks, -1});
  cuda::AttentionDecodeArgs args = make_args(shape, 1);
  const DeviceArray<cuda::PrefillItem> items(plan.items);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> num_items(std::vector<int32_t>{1});
  const DeviceArray<float> out(static_cast<size_t>(count) * shape.heads * shape.dim);
  const DeviceArray<float> lse(static_cast<size_t>(count) * shape.heads);
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = queries.data();
  args.k = memory.data();
  args.v = reinterpret_cast<const uint8_t*>(memory.data()) + num_blocks * shape.block_bytes();
  args.out = out.data();
  args.lse = lse.data();
  const double us = bench::time_in_graph(4, [&](int, cudaStream_t stream) {
    expect_ok(
        cuda::launch_attention_prefill(prefill_args(args, items.data(), num_items.data()), stream));
  });
  const double seen = static_cast<double>(count) * (first + (count + 1) / 2.0);
  std::printf("time  prefill %s %d/%d x %d: %5d tokens from %6d on %9.1f us %5.0f TFLOP/s\n",
              tensor::to_string(shape.format()), shape.heads, shape.kv_heads, shape.dim, count,
              first, us, 4 * seen * shape.heads * shape.dim / us / 1e6);
}

double measure_read(const DeviceArray<uint32_t>& memory) {
  const DeviceArray<uint32_t> sink(1);
  const size_t part = memory.bytes() / 8;
  const double read_us = bench::time_in_graph(8, [&](int i, cudaStream_t stream) {
    const auto* data =
        reinterpret_cast<const uint4*>(memory.data()) + static_cast<size_t>(i) * part / 16;
    bench::read_kernel<<<132 * 16, 512, 0, stream>>>(data, part / 16, sink.data());
  });
  const double read = static_cast<double>(part) / read_us / 1e3;
  std::printf("read bandwidth %.0f GB/s\n", read);
  return read;
}

int run_times(bool with_prefill) {
  const DeviceArray<uint32_t> memory(size_t{1} << 30);  // 4 GiB
  const DeviceArray<uint32_t> queries(size_t{1} << 26);
  fill_kernel<<<2048, 256>>>(queries.data(), queries.bytes() / 4);
  const double read = measure_read(memory);
  for (const auto cache : {cuda::CacheType::kBf16, cuda::CacheType::kE4m3}) {
    const auto fill = cache == cuda::CacheType::kBf16 ? fill_kernel : fill_codes_kernel;
    fill<<<2048, 256>>>(memory.data(), memory.bytes() / 4);
    CHECK_CUDA(cudaDeviceSynchronize());
    const Shape qwen = {32, 4, 128, 64, 0, cache};
    const Shape glm = {96, 8, 128, 64, 0, cache};
    const Shape gpt_oss = {64, 8, 64, 64, 0, cache};
    const Shape windowed = {64, 8, 64, 64, 128, cache};
    for (const TimedCase& c :
         {TimedCase{"32/4 x 128: 1 x 131072", qwen, {{1, 131072}}},
          TimedCase{"32/4 x 128: 64 x 4096", qwen, {{64, 4096}}},
          TimedCase{"32/4 x 128: 16 x 32768", qwen, {{16, 32768}}},
          TimedCase{"32/4 x 128: 128 x 1024", qwen, {{128, 1024}}},
          TimedCase{"32/4 x 128: 63 x 2048 + 1 x 262144", qwen, {{63, 2048}, {1, 262144}}},
          TimedCase{"32/4 x 128: 1 x 512", qwen, {{1, 512}}},
          TimedCase{"96/8 x 128: 32 x 4096", glm, {{32, 4096}}},
          TimedCase{"64/8 x 64: 64 x 4096", gpt_oss, {{64, 4096}}},
          TimedCase{"64/8 x 64: 1 x 131072", gpt_oss, {{1, 131072}}},
          TimedCase{"64/8 x 64, window 128: 64 x 4096", windowed, {{64, 4096}}}}) {
      time_case(c, memory, queries, read);
    }
    if (!with_prefill) continue;
    for (const auto& [first, count] :
         {std::pair{0, 512}, {0, 4096}, {0, 16384}, {30720, 2048}, {131072, 512}}) {
      time_prefill(qwen, first, count, memory, queries);
    }
    time_prefill(gpt_oss, 0, 4096, memory, queries);
    time_prefill(windowed, 0, 4096, memory, queries);
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::run_checks();
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::run_times(true);
  if (argc == 2 && std::strcmp(argv[1], "--time-decode") == 0) return nanocp::run_times(false);
  std::fprintf(stderr, "usage: %s --check | --time | --time-decode\n", argv[0]);
  return 1;
}
