// A second instance that sends rows late, for checks of kernels that wait: this GPU plays both.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <vector>

#include "backend/cuda/device/flag_wait.cuh"
#include "backend/cuda/exchange_view.h"
#include "bench/kernels/cuda_device_array.h"

namespace nanocp::bench {

// What the second instance sends: the true bytes over poisoned ones, then its flag.
struct LateBytes {
  const uint8_t* from[2];  // device
  uint8_t* to[2];
  size_t count[2];
};

__global__ void send_late_kernel(LateBytes late, uint64_t* flag, uint64_t epoch) {
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

// Of the first instance's heap only the flags are there.
class LateInstance {
 public:
  LateInstance()
      : flags_(std::vector<uint64_t>(2 * cuda::kNumFlagKinds, 0)),
        step_(std::vector<uint64_t>{3}),
        base_(std::vector<uint8_t*>{reinterpret_cast<uint8_t*>(flags_.data()), nullptr}) {
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

  // Makes kernels with these arguments wait for instance 1.
  template <typename Args>
  void fill(Args& args) const {
    args.exchange.base = base_.data();
    args.exchange.wait = wait_;
    args.exchange.num_instances = 2;
    args.epoch = {step_.data(), 2, 1};  // number (3 - 1) * 2 + 1 + 1
  }
  // In the background, a millisecond from now, with the flag kQuery.
  void send(const LateBytes& late) const {
    send_late_kernel<<<1, 512, 0, peer_>>>(late, flags_.data() + 1, 6);
  }
  bool timed_out() const { return *wait_.abort_word != 0; }
  cudaStream_t own() const { return own_; }  // for the kernels that wait

 private:
  DeviceArray<uint64_t> flags_;
  DeviceArray<uint64_t> step_;
  DeviceArray<uint8_t*> base_;
  cuda::WaitControl wait_ = {};
  cudaStream_t peer_ = nullptr;
  cudaStream_t own_ = nullptr;
};

}  // namespace nanocp::bench
