// Addresses, epochs and completion in kernels that exchange rows between instances.
#pragma once

#include <cuda_bf16.h>

#include "backend/cuda/device/flag_wait.cuh"
#include "backend/cuda/exchange_view.h"

namespace nanocp::cuda::device {

template <typename T>
__device__ inline T* heap_at(const ExchangeView& exchange, int32_t instance, int64_t offset) {
  return reinterpret_cast<T*>(exchange.base[instance] + offset);
}

// The flag that `source` raises at `instance`.
__device__ inline uint64_t* flag_of(const ExchangeView& exchange, int32_t instance, FlagKind kind,
                                    int32_t source) {
  return heap_at<uint64_t>(exchange, instance, exchange.offsets.flags) +
         static_cast<int32_t>(kind) * exchange.num_instances + source;
}

__device__ inline uint64_t number_of(const ExchangeEpoch& epoch) {
  return (*epoch.step - 1) * static_cast<uint64_t>(epoch.per_step) +
         static_cast<uint64_t>(epoch.index) + 1;
}

// Called by all threads of every block once its writes are done. True in the one thread that may
// tell others that all blocks' writes are done: what it writes next with release is seen after
// them. `counter` is zero before and after.
__device__ inline bool is_last_to_finish(uint32_t* counter) {
  __syncthreads();
  if (threadIdx.x != 0) return false;
  __threadfence_system();
  const uint32_t blocks = gridDim.x * gridDim.y;
  if (atomicAdd(counter, 1U) != blocks - 1) return false;
  *counter = 0;
  __threadfence_system();
  return true;
}

struct alignas(16) Bf16x8 {
  __nv_bfloat162 pairs[4];

  __device__ void set(const float (&values)[8]) {
    for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  }
  __device__ void add_to(float (&sums)[8], float factor) const {
    for (int i = 0; i < 4; ++i) {
      const float2 pair = __bfloat1622float2(pairs[i]);
      sums[2 * i] += factor * pair.x;
      sums[2 * i + 1] += factor * pair.y;
    }
  }
};

}  // namespace nanocp::cuda::device
