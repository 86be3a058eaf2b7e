// What the own exchange is measured against, and what it may carry, between GPUs of this host:
// - dispatch and combine as two groups of NCCL sends and receives of fixed capacity (each row goes
//   to all GPUs and comes back), without router, plan, sums or norm;
// - pushes of a few KB to MB a row to the next GPU and the flag behind them, as latent attention
//   could choose them.
// Chained iterations, a thread per GPU; times are of the slowest GPU, per iteration.
// Usage: cuda_nccl_compare_bench (--push | --nccl-stream | --nccl-graph) [--gpus N]
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <barrier>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

#include "backend/cuda/cuda_status.h"
#include "backend/cuda/device/exchange.cuh"
#include "backend/cuda/launch_overlapped.h"
#include "comm/nvlink/symmetric_heap.h"
#include "graph/step_graph.h"

namespace nanocp {
namespace {

int num_gpus = 0;  // that take part; set once, at the start
constexpr int kIterations = 32;
constexpr int kLaunches = 30;
constexpr int kPushThreads = 256;
constexpr int64_t kPushBytesMax = int64_t{16} << 20;

template <typename T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "error: %s\n", result.error().message.c_str());
  std::exit(1);
}
void must_cuda(cudaError_t code) {
  must(cuda::cuda_status(code, "CUDA"));
}
void must_nccl(ncclResult_t code, const char* what) {
  if (code == ncclSuccess) return;
  std::fprintf(stderr, "error: %s: %s\n", what, ncclGetErrorString(code));
  std::exit(1);
}

struct PushArgs {
  cuda::ExchangeView exchange;
  cuda::ExchangeEpoch epoch;
  const uint4* from;
  int64_t num_vectors;  // of 16 bytes
  uint32_t* counter;
};

// Pushes to the peer's cache region and raises the flag behind it.
__global__ void __launch_bounds__(kPushThreads) push_kernel(const __grid_constant__ PushArgs args) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const cuda::ExchangeView& exchange = args.exchange;
  const int32_t peer = (exchange.self + 1) % exchange.num_instances;
  auto* to = cuda::device::heap_at<uint4>(exchange, peer, exchange.offsets.kv_cache);
  const int64_t stride = int64_t{gridDim.x} * kPushThreads;
  for (int64_t i = int64_t{blockIdx.x} * kPushThreads + threadIdx.x; i < args.num_vectors;
       i += stride) {
    to[i] = args.from[i];
  }
  if (!cuda::device::is_last_to_finish(args.counter, gridDim.x)) return;
  cuda::device::set_flag(
      cuda::device::flag_of(exchange, peer, cuda::FlagKind::kQuery, exchange.self),
      cuda::device::number_of(args.epoch));
}

__global__ void wait_kernel(const __grid_constant__ PushArgs args) {
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  const cuda::ExchangeView& exchange = args.exchange;
  const int32_t peer = (exchange.self + exchange.num_instances - 1) % exchange.num_instances;
  cuda::device::wait_for_flag(
      cuda::device::flag_of(exchange, exchange.self, cuda::FlagKind::kQuery, peer),
      cuda::device::number_of(args.epoch), exchange.wait, cuda::WaitPurpose::kQuery, peer);
}

__global__ void next_step_kernel(uint64_t* step) {
  ++*step;
}

double median_of(std::vector<float>& times) {
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

// Median microseconds of an iteration; `launch` enqueues kIterations of them.
double time_launches(cudaStream_t stream, const std::function<void()>& launch) {
  cudaEvent_t begin, end;
  must_cuda(cudaEventCreate(&begin));
  must_cuda(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < kLaunches; ++i) {
    must_cuda(cudaEventRecord(begin, stream));
    launch();
    must_cuda(cudaEventRecord(end, stream));
    must_cuda(cudaEventSynchronize(end));
    float ms = 0.0F;
    must_cuda(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 5) times.push_back(ms * 1000.0F / kIterations);
  }
  return median_of(times);
}

// Runs `work` for each GPU in its own thread; the larger result.
double slowest(const std::function<double(int)>& work) {
  std::vector<double> results(static_cast<size_t>(num_gpus));
  std::vector<std::thread> threads;
  for (int i = 0; i < num_gpus; ++i) {
    threads.emplace_back([&, i] {
      must_cuda(cudaSetDevice(i));
      results[static_cast<size_t>(i)] = work(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(results.begin(), results.end());
}

double time_push(int64_t bytes) {
  std::vector<int> devices(static_cast<size_t>(num_gpus));
  std::iota(devices.begin(), devices.end(), 0);
  const auto group = must(comm::NvlinkGroup::create({.devices = devices,
                                                     .capacity = {.num_instances = num_gpus,
                                                                  .max_rows = 1,
                                                                  .hidden = 8,
                                                                  .topk = 1,
                                                                  .num_heads = 1,
                                                                  .query_values = 8,
                                                                  .partial_values = 8,
                                                                  .kv_cache_bytes = kPushBytesMax},
                                                     .timeout_us = 3'000'000}));
  const double time = slowest([&](int gpu) {
    cudaStream_t stream;
    must_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    uint8_t* memory;
    must_cuda(cudaMalloc(&memory, static_cast<size_t>(kPushBytesMax + 256)));
    must_cuda(cudaMemset(memory, 0, static_cast<size_t>(kPushBytesMax + 256)));
    const uint64_t one = 1;
    auto* step = reinterpret_cast<uint64_t*>(memory + kPushBytesMax);
    must_cuda(cudaMemcpy(step, &one, sizeof(one), cudaMemcpyHostToDevice));
    const int64_t vectors = bytes / 16;
    const dim3 grid(static_cast<unsigned>(
        std::clamp<int64_t>(cuda::divide_up(vectors, int64_t{2} * kPushThreads), 1, 132)));
    auto graph = must(graph::StepGraph::capture([&](cudaStream_t capture) -> Status {
      for (int i = 0; i < kIterations; ++i) {
        const PushArgs args = {.exchange = group->view(gpu),
                               .epoch = {step, kIterations, i},
                               .from = reinterpret_cast<const uint4*>(memory),
                               .num_vectors = vectors,
                               .counter = reinterpret_cast<uint32_t*>(step + 2)};
        NANOCP_RETURN_IF_ERROR(
            cuda::launch_overlapped(push_kernel, grid, kPushThreads, args, capture, "push"));
        NANOCP_RETURN_IF_ERROR(
            cuda::launch_overlapped(wait_kernel, dim3(1), 1, args, capture, "wait"));
      }
      next_step_kernel<<<1, 1, 0, capture>>>(step);
      return ok_status();
    }));
    return time_launches(stream, [&] { must(graph->launch(stream)); });
  });
  must(group->failure());
  return time;
}

void run_pushes() {
  struct Cargo {
    const char* name;
    int64_t row_bytes;
  };
  constexpr Cargo kCargos[] = {{"nothing", 0},
                               {"latent input of the query (1536)", 3072},
                               {"value-projected partial (128 x 128)", 32768},
                               {"query before absorption (128 x 192)", 49152},
                               {"latent partial (128 x 512)", 131072},
                               {"absorbed query (128 x 576)", 147456}};
  for (const Cargo& cargo : kCargos) {
    for (const int64_t rows : {1, 4, 16, 64}) {
      std::printf("push  %-36s %2d rows, %8d bytes: %6.1f us\n", cargo.name, static_cast<int>(rows),
                  static_cast<int>(rows * cargo.row_bytes), time_push(rows * cargo.row_bytes));
      if (cargo.row_bytes == 0) break;
    }
  }
}

// Two all-to-alls of `values` bf16 with each GPU (itself too), as dispatch and combine.
void enqueue_pair(ncclComm_t comm, uint8_t* memory, size_t values, cudaStream_t stream) {
  for (int round = 0; round < 2; ++round) {
    must_nccl(ncclGroupStart(), "ncclGroupStart");
    for (int peer = 0; peer < num_gpus; ++peer) {
      const size_t offset = static_cast<size_t>(peer) * values * 2;
      must_nccl(ncclSend(memory + offset, values, ncclBfloat16, peer, comm, stream), "ncclSend");
      must_nccl(ncclRecv(memory + static_cast<size_t>(num_gpus) * values * 2 + offset, values,
                         ncclBfloat16, peer, comm, stream),
                "ncclRecv");
    }
    must_nccl(ncclGroupEnd(), "ncclGroupEnd");
  }
}

void run_nccl(bool use_graph) {
  std::vector<ncclComm_t> comms(static_cast<size_t>(num_gpus));
  must_nccl(ncclCommInitAll(comms.data(), num_gpus, nullptr), "ncclCommInitAll");
  std::barrier meet(num_gpus);
  for (const size_t rows : {1, 8, 32, 64, 128}) {
    const size_t values = rows * 7168;
    const double time = slowest([&](int gpu) {
      cudaStream_t stream;
      must_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
      uint8_t* memory;
      must_cuda(cudaMalloc(&memory, values * 2 * 2 * static_cast<size_t>(num_gpus)));
      const ncclComm_t comm = comms[static_cast<size_t>(gpu)];
      // Connections are made by the first use, outside of any capture.
      enqueue_pair(comm, memory, values, stream);
      must_cuda(cudaStreamSynchronize(stream));
      meet.arrive_and_wait();
      const auto enqueue = [&](cudaStream_t on) {
        for (int i = 0; i < kIterations; ++i) enqueue_pair(comm, memory, values, on);
      };
      if (!use_graph) return time_launches(stream, [&] { enqueue(stream); });
      auto graph = must(graph::StepGraph::capture([&](cudaStream_t capture) -> Status {
        enqueue(capture);
        return ok_status();
      }));
      meet.arrive_and_wait();
      const double result = time_launches(stream, [&] { must(graph->launch(stream)); });
      meet.arrive_and_wait();
      return result;
    });
    std::printf("nccl  %d GPUs, %s dispatch + combine, %3d rows of 7168 values per GPU: %6.1f us\n",
                num_gpus, use_graph ? "graph: " : "stream:", static_cast<int>(rows), time);
    std::fflush(stdout);
  }
  std::fflush(stdout);
  std::_Exit(0);  // graphs may still hold the communicators
}

}  // namespace
}  // namespace nanocp

int main(int argc, char** argv) {
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  const char* what = argc == 2 || argc == 4 ? argv[1] : "";
  int count = 0;
  nanocp::must_cuda(cudaGetDeviceCount(&count));
  nanocp::num_gpus = count;
  if (argc == 4) nanocp::num_gpus = std::strcmp(argv[2], "--gpus") == 0 ? std::atoi(argv[3]) : 0;
  if (nanocp::num_gpus < 2 || nanocp::num_gpus > count) {
    std::fprintf(stderr, "error: --gpus must be 2 to %d, the GPUs that are here\n", count);
    return 1;
  }
  if (std::strcmp(what, "--push") == 0) {
    nanocp::run_pushes();
    return 0;
  }
  if (std::strcmp(what, "--nccl-stream") == 0) nanocp::run_nccl(false);
  if (std::strcmp(what, "--nccl-graph") == 0) nanocp::run_nccl(true);
  std::fprintf(stderr, "usage: %s (--push | --nccl-stream | --nccl-graph) [--gpus N]\n", argv[0]);
  return 1;
}
