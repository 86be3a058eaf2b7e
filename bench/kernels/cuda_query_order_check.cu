#include "bench/kernels/cuda_query_order_check.h"

#include "backend/cuda/attention_inputs.h"
#include "backend/cuda/device/flag_wait.cuh"
#include "bench/kernels/cuda_attention_inputs_bench_data.h"

namespace nanocp::bench {
namespace {

constexpr int kRows = 48;
constexpr int kHeads = 32;
constexpr int kKvHeads = 4;
constexpr int kDim = 128;
constexpr int kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr int kPeer = 1;
constexpr int kSteps = 300;
constexpr uint64_t kTimeoutNs = 4'000'000'000;

__device__ float value_of(uint64_t step) {
  return static_cast<float>(step % 200 + 1);  // exact in bf16
}

struct Side {
  cuda::ExchangeView view;
  cuda::CacheLayout layout;
  uint64_t* acknowledged;  // in the first GPU's memory, written by the peer
  uint32_t* num_wrong;
  uint64_t step;
  bool with_cache;
};

// The first GPU, before it writes step `step`: the peer has read the step before.
__global__ void begin_step_kernel(Side side, cuda::StepHeader* header, __nv_bfloat16* rows,
                                  int count) {
  __shared__ bool go;
  if (threadIdx.x == 0) {
    go = cuda::device::wait_for_flag(side.acknowledged, side.step - 1, side.view.wait,
                                     cuda::WaitPurpose::kQuery, kPeer);
    if (blockIdx.x == 0) header->step = side.step;
  }
  __syncthreads();
  if (!go) return;
  const auto stride = static_cast<int>(gridDim.x * blockDim.x);
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < count; i += stride) {
    rows[i] = __float2bfloat16(value_of(side.step));
  }
}

__device__ void count_wrong(const Side& side, const uint8_t* values, int64_t count) {
  const auto* at = reinterpret_cast<const __nv_bfloat16*>(values);
  uint32_t num_wrong = 0;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    if (__bfloat162float(at[i]) != value_of(side.step)) ++num_wrong;
  }
  if (num_wrong > 0) atomicAdd_system(side.num_wrong, num_wrong);
}

// The peer: rows r of all go to its slots r, and to tokens r of its cache.
__global__ void read_step_kernel(Side side) {
  const uint8_t* heap = side.view.base[kPeer];
  __shared__ bool arrived;
  if (threadIdx.x == 0) {
    const auto* flags = reinterpret_cast<const uint64_t*>(heap + side.view.offsets.flags);
    arrived = cuda::device::wait_for_flag(flags + kSelf, side.step, side.view.wait,
                                          cuda::WaitPurpose::kQuery, kSelf);
  }
  __syncthreads();
  const int64_t row = side.view.query_values * int64_t{sizeof(__nv_bfloat16)};
  const uint8_t* slots =
      heap + side.view.offsets.query + (1 + kSelf) * int64_t{side.view.max_rows} * row;
  count_wrong(side, slots, int64_t{kRows} * side.view.query_values);
  for (int r = 0; side.with_cache && r < kRows; ++r) {
    for (int h = 0; h < kKvHeads; ++h) {
      const int64_t at = r / kBlockSize * side.layout.block_stride + h * side.layout.head_stride +
                         r % kBlockSize * kDim;
      count_wrong(side, heap + side.layout.k_offset + at * 2, kDim);
      count_wrong(side, heap + side.layout.v_offset + at * 2, kDim);
    }
  }
  if (threadIdx.x == 0 && !arrived) atomicAdd_system(side.num_wrong, 1U);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence_system();
    cuda::device::raise_flag(side.acknowledged, side.step);
  }
}

cuda::WaitControl make_wait() {
  cuda::WaitControl wait = {};
  CHECK_CUDA(cudaHostAlloc(&wait.abort_word, 256, cudaHostAllocPortable | cudaHostAllocMapped));
  CHECK_CUDA(cudaHostAlloc(&wait.report, 256, cudaHostAllocPortable | cudaHostAllocMapped));
  std::memset(wait.abort_word, 0, 256);
  std::memset(wait.report, 0, 256);
  wait.timeout_ns = kTimeoutNs;
  return wait;
}

cuda::CacheLayout make_layout(int64_t base) {
  cuda::CacheLayout layout;
  layout.block_size = kBlockSize;
  layout.head_stride = int64_t{kBlockSize} * kDim;
  layout.block_stride = kKvHeads * layout.head_stride;
  layout.k_offset = base;
  layout.v_offset = base + kNumBlocks * layout.block_stride * 2;
  return layout;
}

// All rows go to the peer, with their K/V.
void send_all_rows(Step& step) {
  step.sends.clear();
  for (int r = 0; r < kRows; ++r) {
    step.targets[r] = {r, kPeer, 0};
    step.sends.push_back({r, kPeer, r});
  }
  step.num_sent = {0, kRows};
  step.upload(kRows);
}

int last_device() {
  int count = 0;
  CHECK_CUDA(cudaGetDeviceCount(&count));
  for (int i = 1; i < count; ++i) {
    CHECK_CUDA(cudaSetDevice(i));
    CHECK_CUDA(cudaDeviceEnablePeerAccess(0, 0));
  }
  return count > 1 ? kPeer : 0;
}

// Kernels are loaded at their first use, which waits for those that run: not while one spins.
void load_kernels() {
  cudaFuncAttributes attributes;
  CHECK_CUDA(cudaFuncGetAttributes(&attributes, begin_step_kernel));
  CHECK_CUDA(cudaFuncGetAttributes(&attributes, read_step_kernel));
}

void launch_grouped(const Side& side, const Step& step, const __nv_bfloat16* qkv, uint32_t* counter,
                    cudaStream_t stream) {
  CHECK_STATUS(cuda::launch_prepare_gqa({.step = step.device,
                                         .exchange = side.view,
                                         .epoch = {&step.device.header->step, 1, 0},
                                         .rows = kRows,
                                         .num_heads = kHeads,
                                         .num_kv_heads = kKvHeads,
                                         .head_dim = kDim,
                                         .qkv = qkv,
                                         .qkv_stride = kWidth,
                                         .rotary = {},
                                         .cache = side.layout,
                                         .counter = counter},
                                        stream));
}

void launch_sends(const Side& side, const Step& step, uint32_t* counter, cudaStream_t stream) {
  CHECK_STATUS(cuda::launch_send_queries({.step = step.device,
                                          .exchange = side.view,
                                          .epoch = {&step.device.header->step, 1, 0},
                                          .rows = kRows,
                                          .counter = counter},
                                         stream));
}

bool check_order(bool grouped, int peer_device) {
  Random random(5);
  CHECK_CUDA(cudaSetDevice(0));
  load_kernels();
  Step step(kRows, kRows, 2, random);
  send_all_rows(step);
  const Heaps heaps(2, kRows, kHeads * kDim,
                    int64_t{8} * kNumBlocks * kKvHeads * kBlockSize * kDim);
  const DeviceArray<__nv_bfloat16> qkv(static_cast<size_t>(kRows) * kWidth);
  const DeviceArray<uint32_t> counters(std::vector<uint32_t>{0, 0});
  const DeviceArray<uint64_t> acknowledged(std::vector<uint64_t>{0});
  Side side = {heaps.view(),
               make_layout(heaps.view().offsets.kv_cache),
               acknowledged.data(),
               counters.data() + 1,
               0,
               grouped};
  side.view.wait = make_wait();
  auto* queries = reinterpret_cast<__nv_bfloat16*>(heaps.own_base() + heaps.view().offsets.query);
  cudaStream_t stream, peer_stream;
  CHECK_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  CHECK_CUDA(cudaSetDevice(peer_device));
  CHECK_CUDA(cudaStreamCreateWithFlags(&peer_stream, cudaStreamNonBlocking));
  for (side.step = 1; side.step <= kSteps; ++side.step) {
    CHECK_CUDA(cudaSetDevice(peer_device));
    read_step_kernel<<<1, 1024, 0, peer_stream>>>(side);
    CHECK_CUDA(cudaSetDevice(0));
    begin_step_kernel<<<32, 256, 0, stream>>>(side, step.d_header.data(),
                                              grouped ? qkv.data() : queries,
                                              kRows * (grouped ? kWidth : kHeads * kDim));
    if (grouped) {
      launch_grouped(side, step, qkv.data(), counters.data(), stream);
    } else {
      launch_sends(side, step, counters.data(), stream);
    }
  }
  CHECK_CUDA(cudaSetDevice(peer_device));
  CHECK_CUDA(cudaStreamSynchronize(peer_stream));
  CHECK_CUDA(cudaSetDevice(0));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  const uint32_t num_wrong = counters.to_host()[1];
  std::printf("check order of %s to GPU %d: %u values read too early in %d steps: %s\n",
              grouped ? "gqa inputs" : "sent queries", peer_device, num_wrong, kSteps,
              num_wrong == 0 ? "ok" : "FAILED");
  return num_wrong == 0;
}

}  // namespace

bool check_query_order() {
  const int peer_device = last_device();
  const bool passed = check_order(true, peer_device) & check_order(false, peer_device);
  CHECK_CUDA(cudaSetDevice(0));
  return passed;
}

}  // namespace nanocp::bench
