// Decode kernels of the CPU backend against the read bandwidth that this program measures itself:
// how much of what memory can deliver reaches the multiply (weights) and the softmax (KV cache).
// Every repetition reads data that no cache holds. Prints a table, or JSON with --json.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "backend/cpu/simd/simd_kernels.h"
#include "base/clock.h"
#include "base/random.h"
#include "ops/attention.h"
#include "ops/linear.h"
#include "tensor/host_buffer.h"

namespace nanocp {
namespace {

constexpr int kRepetitions = 7;

struct Measurement {
  std::string name;
  int64_t bytes;
  double median_us;
  double gigabytes_per_s() const { return static_cast<double>(bytes) / median_us / 1e3; }
};

double median_us(const std::function<void()>& body) {
  const SteadyClock clock;
  std::vector<double> times;
  for (int i = 0; i <= kRepetitions; ++i) {
    const int64_t start_us = clock.now_us();
    body();
    if (i > 0) times.push_back(static_cast<double>(clock.now_us() - start_us));  // 0 warms up
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Sums a region through four streams at a time, with the widest loads there are: one stream alone
// does not keep memory busy.
#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
uint64_t
read_all(const uint64_t* data, int64_t count) {
  constexpr int64_t kLanes = 8;
  const int64_t quarter = count / 4;
  uint64_t sums[4][kLanes] = {};
  for (int64_t i = 0; i + kLanes <= quarter; i += kLanes) {
    for (int64_t stream = 0; stream < 4; ++stream) {
      const uint64_t* values = data + stream * quarter + i;
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[stream][lane] += values[lane];
    }
  }
  uint64_t sum = 0;
  for (const auto& stream : sums) {
    for (const uint64_t lane : stream) sum += lane;
  }
  return sum;
}

Measurement measure_read_bandwidth(ThreadPool& pool, std::span<const uint64_t> memory) {
  const auto count = static_cast<int64_t>(memory.size());
  volatile uint64_t sink = 0;
  const double us = median_us([&] {
    pool.parallel_for(count, 1 << 16, [&](int64_t begin, int64_t end) {
      sink = sink + read_all(memory.data() + begin, end - begin);
    });
  });
  return {"read bandwidth", count * 8, us};
}

struct LinearCase {
  const char* name;
  tensor::WeightFormat format;
  int64_t rows, cols;  // of one matrix
  int64_t num_x_rows;
};

// Streams through as many matrices as fit into `memory`, so that no weight is cached.
Measurement measure_linear(ThreadPool& pool, std::span<const uint64_t> memory,
                           const LinearCase& c) {
  tensor::WeightView w = {.format = c.format, .rows = c.rows, .cols = c.cols};
  w.stride_bytes = tensor::row_bytes(c.format, c.cols);
  const int64_t matrix_bytes = c.rows * w.stride_bytes;
  const int64_t num_matrices = static_cast<int64_t>(memory.size()) * 8 / matrix_bytes;
  const std::vector<float> scales(static_cast<size_t>((c.rows / 128 + 1) * (c.cols / 128 + 1)),
                                  1.0F);
  const std::vector<uint8_t> group_scales(static_cast<size_t>(c.rows * c.cols / 32), 127);
  w.block_rows = w.block_cols = 128;
  w.scales = scales.data();
  w.scale_stride = c.cols / 128 + 1;
  w.group_scales = group_scales.data();
  w.group_scale_stride = c.cols / 32;
  tensor::MatrixBuffer x_buffer, out_buffer;
  const tensor::Matrix x = x_buffer.resize(c.num_x_rows, c.cols);
  std::fill_n(x.data, c.num_x_rows * c.cols, 0.5F);
  const tensor::Matrix out = out_buffer.resize(c.num_x_rows, c.rows);
  const double us = median_us([&] {
    for (int64_t i = 0; i < num_matrices; ++i) {
      w.data = reinterpret_cast<const uint8_t*>(memory.data()) + i * matrix_bytes;
      ops::linear({&pool}, x, w, {}, out);
    }
  });
  return {std::string("linear ") + c.name, num_matrices * matrix_bytes, us};
}

struct AttentionCase {
  const char* name;
  int32_t heads, kv_heads, k_dim, v_dim;
  bool latent;
  int32_t num_requests;
};

Measurement measure_attention(ThreadPool& pool, std::span<uint64_t> memory,
                              const AttentionCase& c) {
  constexpr int32_t kBlockSize = 16;
  const ops::AttentionDesc desc = {.num_heads = c.heads,
                                   .num_kv_heads = c.kv_heads,
                                   .k_dim = c.k_dim,
                                   .v_dim = c.v_dim,
                                   .block_size = kBlockSize,
                                   .sliding_window = 0,
                                   .softmax_scale = 0.1F};
  const int64_t block_values = int64_t{c.kv_heads} * kBlockSize * c.k_dim;
  const int64_t copies = c.latent ? 1 : 2;
  const int64_t num_blocks = static_cast<int64_t>(memory.size()) * 2 / (block_values * copies) /
                             c.num_requests * c.num_requests;
  auto* k = reinterpret_cast<float*>(memory.data());
  const ops::KvCacheView cache = {.k = k,
                                  .v = c.latent ? k : k + num_blocks * block_values,
                                  .block_stride = block_values,
                                  .head_stride = int64_t{kBlockSize} * c.k_dim,
                                  .token_stride = c.k_dim,
                                  .num_blocks = num_blocks};
  const int64_t per_request = num_blocks / c.num_requests;
  std::vector<BlockId> blocks(static_cast<size_t>(num_blocks));
  std::vector<int32_t> block_idx(static_cast<size_t>(num_blocks));
  for (int64_t b = 0; b < num_blocks; ++b) {
    blocks[static_cast<size_t>(b)] = static_cast<BlockId>(b);
    block_idx[static_cast<size_t>(b)] = static_cast<int32_t>(b % per_request);
  }
  std::vector<AttentionItem> items;
  for (int32_t r = 0; r < c.num_requests; ++r) {
    const auto first = static_cast<size_t>(r * per_request);
    const auto count = static_cast<size_t>(per_request);
    items.push_back({.source = 0,
                     .row_begin = r,
                     .num_rows = 1,
                     .first_position = static_cast<int32_t>(per_request * kBlockSize - 1),
                     .sequence = 1,
                     .blocks = std::span(blocks).subspan(first, count),
                     .block_idx = std::span(block_idx).subspan(first, count)});
  }
  tensor::MatrixBuffer q_buffer, out_buffer, lse_buffer;
  const tensor::Matrix q = q_buffer.resize(c.num_requests, int64_t{c.heads} * c.k_dim);
  std::fill_n(q.data, q.rows * q.cols, 0.01F);
  const tensor::Matrix out = out_buffer.resize(c.num_requests, int64_t{c.heads} * c.v_dim);
  const tensor::Matrix lse = lse_buffer.resize(c.num_requests, c.heads);
  const double us = median_us([&] {
    ops::paged_attention({&pool}, {desc, cache, items, q, out, lse});
  });
  return {std::string("attention ") + c.name, num_blocks * block_values * copies * 4, us};
}

void print(const Measurement& m, double bandwidth, bool json) {
  const double share = m.gigabytes_per_s() / bandwidth;
  if (json) {
    std::printf(
        "{\"name\":\"%s\",\"bytes\":%lld,\"median_us\":%.0f,\"gb_per_s\":%.2f,"
        "\"share_of_read_bandwidth\":%.3f}\n",
        m.name.c_str(), static_cast<long long>(m.bytes), m.median_us, m.gigabytes_per_s(), share);
  } else {
    std::printf("%-44s %9.2f GB/s %6.0f %%\n", m.name.c_str(), m.gigabytes_per_s(), 100 * share);
  }
}

int run(bool json, int num_threads, int64_t memory_mib) {
  ThreadPool pool(num_threads);
  const tensor::HostBuffer buffer(static_cast<size_t>(memory_mib) << 20);
  const std::span<uint64_t> memory(static_cast<uint64_t*>(buffer.data()), buffer.size_bytes() / 8);
  // Small positive floats, bf16 pairs and fp8 codes at once: no denormals, no infinities.
  std::fill(memory.begin(), memory.end(), 0x3c003c003c003c00ULL);
  if (!json) {
    std::printf("%d threads, %lld MiB, %s\n", num_threads, static_cast<long long>(memory_mib),
                cpu::simd_kernels().name);
  }
  const Measurement read = measure_read_bandwidth(pool, memory);
  print(read, read.gigabytes_per_s(), json);
  using tensor::WeightFormat;
  for (const LinearCase& c :
       {LinearCase{"bf16 2048x2048, 1 row", WeightFormat::kBf16, 2048, 2048, 1},
        LinearCase{"bf16 768x2048 (expert), 1 row", WeightFormat::kBf16, 768, 2048, 1},
        LinearCase{"bf16 4096x2048, 4 rows", WeightFormat::kBf16, 4096, 2048, 4},
        LinearCase{"f32 2048x2048, 1 row", WeightFormat::kF32, 2048, 2048, 1},
        LinearCase{"fp8 2048x7168, 1 row", WeightFormat::kFp8Block, 2048, 7168, 1},
        LinearCase{"mxfp4 2880x2880, 1 row", WeightFormat::kMxfp4, 2880, 2880, 1}}) {
    print(measure_linear(pool, memory, c), read.gigabytes_per_s(), json);
  }
  for (const AttentionCase& c :
       {AttentionCase{"32 heads, 4 KV heads x 128, 1 request", 32, 4, 128, 128, false, 1},
        AttentionCase{"32 heads, 4 KV heads x 128, 16 requests", 32, 4, 128, 128, false, 16},
        AttentionCase{"64 heads, 8 KV heads x 64, 8 requests", 64, 8, 64, 64, false, 8},
        AttentionCase{"MLA 16 heads, 512+64, 8 requests", 16, 1, 576, 512, true, 8}}) {
    print(measure_attention(pool, memory, c), read.gigabytes_per_s(), json);
  }
  return 0;
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  bool json = false;
  int num_threads = static_cast<int>(std::thread::hardware_concurrency());
  int64_t memory_mib = 1536;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--json") {
      json = true;
    } else if (flag == "--threads" && i + 1 < argc) {
      num_threads = std::atoi(argv[++i]);
    } else if (flag == "--memory-mib" && i + 1 < argc) {
      memory_mib = std::atoll(argv[++i]);
    } else {
      std::fprintf(stderr, "usage: %s [--json] [--threads N] [--memory-mib M]\n", argv[0]);
      return 1;
    }
  }
  if (num_threads < 1 || memory_mib < 64) {
    std::fprintf(stderr, "error: --threads must be at least 1 and --memory-mib at least 64\n");
    return 1;
  }
  return nanocp::run(json, num_threads, memory_mib);
}
