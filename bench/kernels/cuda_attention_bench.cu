// Decode attention on one GPU: `--check` compares random shards with the plain reference, `--time`
// measures the cases that docs/benchmarks names against the read bandwidth of the same run. Times
// are of one layer (attend, merge) inside a CUDA graph that goes round several copies of the cache,
// so that none of it is in the second-level cache; the schedule, once per step, is timed apart.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "backend/cuda/attention_decode.h"
#include "base/random.h"
#include "ops/attention.h"

namespace nanocp {
namespace {

void check_cuda(cudaError_t code, int line) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "error: line %d: %s\n", line, cudaGetErrorString(code));
  std::exit(1);
}
#define CHECK_CUDA(call) check_cuda((call), __LINE__)

template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) { CHECK_CUDA(cudaMalloc(&data_, bytes())); }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(std::max<size_t>(1, values.size())) {
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

// The plan of one launch on the host: rows and their shards.
struct Plan {
  std::vector<cuda::AttentionRow> rows;
  std::vector<int32_t> blocks;
  std::vector<int32_t> block_idx;
};

struct Shape {
  int heads, kv_heads, dim, block_size, window;
};

// --- check
// ----------------------------------------------------------------------------------------

// Rows that hold random parts of random sequences; blocks of different rows are disjoint.
Plan random_plan(const Shape& shape, int num_rows, int max_tokens, Random& random) {
  Plan plan;
  for (int r = 0; r < num_rows; ++r) {
    const auto position = static_cast<int32_t>(random.between(0, max_tokens));
    const auto begin = static_cast<int32_t>(plan.blocks.size());
    const uint64_t keep = random.below(5);  // 0: an empty shard, 4: everything
    for (int32_t i = 0; i <= position / shape.block_size; ++i) {
      if (random.below(4) >= keep) continue;
      plan.block_idx.push_back(i);
      plan.blocks.push_back(static_cast<int32_t>(plan.blocks.size()));
    }
    plan.rows.push_back({r, position, begin, static_cast<int32_t>(plan.blocks.size()) - begin});
  }
  for (size_t i = plan.blocks.size(); i > 1; --i) {
    std::swap(plan.blocks[i - 1], plan.blocks[random.below(i)]);
  }
  return plan;
}

// Random bf16 values as bf16 and as floats.
void fill_random(std::vector<__nv_bfloat16>& values, std::vector<float>& as_float, Random& random) {
  as_float.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = __float2bfloat16(static_cast<float>(random.uniform() * 4 - 2));
    as_float[i] = __bfloat162float(values[i]);
  }
}

struct Difference {
  double out = 0.0;
  double lse = 0.0;
  bool neutral_rows_agree = true;
};

Difference compare(const std::vector<float>& out, const std::vector<float>& lse,
                   const tensor::Matrix& want_out, const tensor::Matrix& want_lse) {
  Difference difference;
  for (int64_t i = 0; i < want_out.rows * want_out.cols; ++i) {
    difference.out =
        std::max<double>(difference.out, std::abs(out[static_cast<size_t>(i)] - want_out.data[i]));
    if (std::isnan(out[static_cast<size_t>(i)])) difference.out = INFINITY;
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
                 .max_rows = max_rows};
  args.head_stride = int64_t{shape.block_size} * shape.dim;
  args.block_stride = shape.kv_heads * args.head_stride;
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
                   std::vector<float>& kv, std::vector<float>& q, tensor::Matrix out,
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
                 .num_blocks = static_cast<int64_t>(std::max<size_t>(1, plan.blocks.size()))},
       .items = items,
       .q = {q.data(), rows, width, width},
       .out = out,
       .lse = lse});
}

bool check_shape(const Shape& shape, int num_rows, int max_tokens, Random& random) {
  const Plan plan = random_plan(shape, num_rows, max_tokens, random);
  cuda::AttentionDecodeArgs args = make_args(shape, num_rows + 3);
  const size_t half =
      std::max<size_t>(1, plan.blocks.size()) * static_cast<size_t>(args.block_stride);
  std::vector<__nv_bfloat16> kv(2 * half),
      q(static_cast<size_t>(num_rows * shape.heads * shape.dim));
  std::vector<float> kv_float, q_float;
  fill_random(kv, kv_float, random);
  fill_random(q, q_float, random);
  const DeviceArray<__nv_bfloat16> device_kv(kv), device_q(q);
  const DeviceArray<cuda::AttentionRow> rows(plan.rows);
  const DeviceArray<int32_t> blocks(plan.blocks), block_idx(plan.block_idx);
  const DeviceArray<int32_t> count(std::vector<int32_t>{num_rows});
  const DeviceArray<float> out(q.size()), lse(static_cast<size_t>(num_rows * shape.heads));
  const DeviceArray<uint8_t> workspace(workspace_bytes(args.config));
  CHECK_CUDA(cudaMemset(out.data(), 0xff, out.bytes()));  // NaN: every value must be written
  args.rows = rows.data();
  args.num_rows = count.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = device_q.data();
  args.k = device_kv.data();
  args.v = device_kv.data() + half;
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  schedule(args, nullptr);
  attend(args, nullptr);
  CHECK_CUDA(cudaDeviceSynchronize());
  tensor::MatrixBuffer want_out, want_lse;
  const tensor::Matrix want = want_out.resize(num_rows, int64_t{shape.heads} * shape.dim);
  const tensor::Matrix want_logs = want_lse.resize(num_rows, shape.heads);
  run_reference(shape, plan, args, kv_float, q_float, want, want_logs);
  const Difference difference = compare(out.to_host(), lse.to_host(), want, want_logs);
  // Values are within [-2, 2]; weights are rounded to bf16 (2^-9) before they meet V.
  const bool passed =
      difference.out < 8e-3 && difference.lse < 1e-3 && difference.neutral_rows_agree;
  std::printf(
      "check %3d/%d heads x %3d, block %3d, window %4d, %3d rows <= %5d: out %.1e lse %.1e %s\n",
      shape.heads, shape.kv_heads, shape.dim, shape.block_size, shape.window, num_rows, max_tokens,
      difference.out, difference.lse, passed ? "ok" : "FAILED");
  return passed;
}

int run_checks() {
  Random random(1);
  int num_failed = 0;
  for (const Shape& shape :
       {Shape{32, 4, 128, 64, 0}, Shape{64, 8, 64, 64, 0}, Shape{64, 8, 64, 64, 128},
        Shape{16, 2, 128, 16, 0}, Shape{16, 1, 128, 32, 100}, Shape{8, 8, 64, 128, 0},
        Shape{96, 8, 128, 64, 0}, Shape{5, 1, 64, 48, 33}}) {
    for (const auto& [rows, tokens] :
         {std::pair{1, 20}, {1, 3000}, {3, 700}, {40, 900}, {300, 64}}) {
      if (!check_shape(shape, rows, tokens, random)) ++num_failed;
    }
  }
  std::printf("%s\n", num_failed == 0 ? "all checks passed" : "CHECKS FAILED");
  return num_failed == 0 ? 0 : 1;
}

// --- time
// -----------------------------------------------------------------------------------------

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

__global__ void fill_kernel(uint32_t* data, size_t count) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const uint32_t noise = static_cast<uint32_t>(i) * 2654435761U;
    data[i] = (noise & 0x80ff80ffU) | 0x3f003f00U;  // bf16 pairs of size 0.5 to 2
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
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

struct TimedCase {
  const char* name;
  Shape shape;
  std::vector<std::pair<int, int>> rows;  // how many, tokens each
};

double time_case(const TimedCase& c, const DeviceArray<uint32_t>& memory, double read_gb_per_s) {
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
                           static_cast<int32_t>(plan.blocks.size()) - begin});
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
  const size_t half = plan.blocks.size() * static_cast<size_t>(args.block_stride);  // elements
  const size_t copies = std::max<size_t>(1, memory.bytes() / 2 / (2 * half));
  args.rows = rows.data();
  args.num_rows = count.data();
  args.blocks = blocks.data();
  args.block_idx = block_idx.data();
  args.q = memory.data();
  args.out = out.data();
  args.lse = lse.data();
  args.workspace = workspace.data();
  const auto* base = reinterpret_cast<const __nv_bfloat16*>(memory.data());
  const double schedule_us =
      time_in_graph(24, [&](int, cudaStream_t stream) { schedule(args, stream); });
  const double us = time_in_graph(24, [&](int i, cudaStream_t stream) {
    const size_t copy = static_cast<size_t>(i) % copies;
    args.k = base + copy * 2 * half;
    args.v = base + copy * 2 * half + half;
    attend(args, stream);
  });
  const double bytes = static_cast<double>(tokens) * shape.kv_heads * shape.dim * 4;
  const double gb_per_s = bytes / us / 1e3;
  std::printf("time  %-44s %8.1f us %7.0f GB/s %5.1f %% of read, schedule %4.1f us\n", c.name, us,
              gb_per_s, 100 * gb_per_s / read_gb_per_s, schedule_us);
  return us;
}

int run_times() {
  const DeviceArray<uint32_t> memory(size_t{1} << 30);  // 4 GiB
  fill_kernel<<<2048, 256>>>(memory.data(), memory.bytes() / 4);
  CHECK_CUDA(cudaDeviceSynchronize());
  const DeviceArray<uint32_t> sink(1);
  const size_t part = memory.bytes() / 8;
  const double read_us = time_in_graph(8, [&](int i, cudaStream_t stream) {
    const auto* data =
        reinterpret_cast<const uint4*>(memory.data()) + static_cast<size_t>(i) * part / 16;
    read_kernel<<<132 * 16, 512, 0, stream>>>(data, part / 16, sink.data());
  });
  const double read = static_cast<double>(part) / read_us / 1e3;
  std::printf("read bandwidth %.0f GB/s\n", read);
  const Shape qwen = {32, 4, 128, 64, 0};
  const Shape gpt_oss = {64, 8, 64, 64, 0};
  for (const TimedCase& c :
       {TimedCase{"32/4 x 128: 1 x 131072", qwen, {{1, 131072}}},
        TimedCase{"32/4 x 128: 64 x 4096", qwen, {{64, 4096}}},
        TimedCase{"32/4 x 128: 16 x 32768", qwen, {{16, 32768}}},
        TimedCase{"32/4 x 128: 128 x 1024", qwen, {{128, 1024}}},
        TimedCase{"32/4 x 128: 63 x 2048 + 1 x 262144", qwen, {{63, 2048}, {1, 262144}}},
        TimedCase{"32/4 x 128: 1 x 512", qwen, {{1, 512}}},
        TimedCase{"64/8 x 64: 64 x 4096", gpt_oss, {{64, 4096}}},
        TimedCase{"64/8 x 64: 1 x 131072", gpt_oss, {{1, 131072}}},
        TimedCase{"64/8 x 64, window 128: 64 x 4096", {64, 8, 64, 64, 128}, {{64, 4096}}}}) {
    time_case(c, memory, read);
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--check") == 0) return nanocp::run_checks();
  if (argc == 2 && std::strcmp(argv[1], "--time") == 0) return nanocp::run_times();
  std::fprintf(stderr, "usage: %s --check | --time\n", argv[0]);
  return 1;
}
