// A second instance for checks on one GPU: what it sends comes late, into memory that kernels of
// the first one already wait for. One thread; device memory of the current device.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "backend/cuda/device/flag_wait.cuh"
#include "backend/cuda/exchange_view.h"
#include "bench/kernels/cuda_device_array.h"

namespace nanocp::bench {

// The true bytes over poisoned ones, of the queries and of the cache.
struct LateBytes {
  LateBytes(const void* q, void* late_q, size_t q_bytes, const void* cache, void* late_cache,
            size_t cache_bytes)
      : from{static_cast<const uint8_t*>(q), static_cast<const uint8_t*>(cache)},
        to{static_cast<uint8_t*>(late_q), static_cast<uint8_t*>(late_cache)},
        count{q_bytes, cache_bytes} {}

  const uint8_t* from[2];
  uint8_t* to[2];
  size_t count[2];
};

static __global__ void send_late_kernel(LateBytes late, uint64_t* flag, uint64_t epoch) {
  const uint64_t begin = cuda::device::global_time_ns();
  while (cuda::device::global_time_ns() < begin + 1'000'000) {
  }
  for (int i = 0; i < 2; ++i) {
    for (size_t at = threadIdx.x; at < late.count[i]; at += blockDim.x) {
      late.to[i][at] = late.from[i][at];
    }
  }
  __threadfence_system();
  __syncthreads();
  if (threadIdx.x == 0) cuda::device::raise_flag(flag, epoch);
}

// Two instances of which this GPU is the first; of the heap only the flags are there.
class LateInstance {
 public:
  LateInstance()
      : flags_(std::vector<uint64_t>(2 * cuda::kNumFlagKinds, 0)), step_(std::vector<uint64_t>{3}) {
    auto* heap = reinterpret_cast<uint8_t*>(flags_.data());
    base_ = std::make_unique<DeviceArray<uint8_t*>>(std::vector<uint8_t*>{heap, nullptr});
    CHECK_CUDA(cudaHostAlloc(&wait_.abort_word, 256, cudaHostAllocMapped));
    CHECK_CUDA(cudaHostAlloc(&wait_.report, 256, cudaHostAllocMapped));
    std::memset(wait_.abort_word, 0, 256);
    std::memset(wait_.report, 0, 256);
    wait_.timeout_ns = 3'000'000'000;
    cudaFuncAttributes attributes;  // loads it before anything spins
    CHECK_CUDA(cudaFuncGetAttributes(&attributes, send_late_kernel));
    CHECK_CUDA(cudaStreamCreateWithFlags(&peer_, cudaStreamNonBlocking));
    CHECK_CUDA(cudaStreamCreateWithFlags(&own_, cudaStreamNonBlocking));
  }
  LateInstance(const LateInstance&) = delete;
  LateInstance& operator=(const LateInstance&) = delete;
  ~LateInstance() {
    CHECK_CUDA(cudaStreamDestroy(peer_));
    CHECK_CUDA(cudaStreamDestroy(own_));
    CHECK_CUDA(cudaFreeHost(wait_.abort_word));
    CHECK_CUDA(cudaFreeHost(wait_.report));
  }

  template <typename Args>
  void fill(Args& args) const {
    args.exchange.base = base_->data();
    args.exchange.wait = wait_;
    args.exchange.num_instances = 2;
    args.epoch = {step_.data(), 2, 1};  // number 6
  }
  // What the second instance sends, then its flag kQuery, in the background.
  void send(const LateBytes& late) const {
    send_late_kernel<<<1, 128, 0, peer_>>>(late, flags_.data() + 1, 6);
  }
  bool timed_out() const { return *wait_.abort_word != 0; }
  cudaStream_t own() const { return own_; }

 private:
  DeviceArray<uint64_t> flags_;
  DeviceArray<uint64_t> step_;
  std::unique_ptr<DeviceArray<uint8_t*>> base_;
  cuda::WaitControl wait_ = {};
  cudaStream_t peer_ = nullptr;
  cudaStream_t own_ = nullptr;
};

}  // namespace nanocp::bench
