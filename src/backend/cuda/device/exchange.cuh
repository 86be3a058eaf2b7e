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

// Called by all threads of `num_blocks` blocks once their writes are done. True in the one thread
// that may raise flags with set_flag: all blocks' writes are visible before them. Blocks publish
// what they wrote on the GPU, and the last one all of it to the system, so that one slow fence is
// enough. `counter` is zero before and after.
__device__ inline bool is_last_to_finish(uint32_t* counter, uint32_t num_blocks) {
  __syncthreads();
  if (threadIdx.x != 0) return false;
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  if (atomicInc(counter, num_blocks - 1) != num_blocks - 1) return false;
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  return true;
}

// Raises a flag behind a fence at system scope.
__device__ inline void set_flag(uint64_t* flag, uint64_t epoch) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(epoch) : "memory");
}

// 16 bytes in one access that other GPUs see as a whole.
template <typename T>
__device__ inline void store_whole(T* to, const T& value) {
  static_assert(sizeof(T) == 16);
  const auto& halves = reinterpret_cast<const ulonglong2&>(value);
  asm volatile(
      "{.reg .b128 v; mov.b128 v, {%1, %2}; st.relaxed.sys.global.b128 [%0], v;}" ::"l"(to),
      "l"(halves.x), "l"(halves.y)
      : "memory");
}
template <typename T>
__device__ inline T load_whole(const T* from) {
  static_assert(sizeof(T) == 16);
  ulonglong2 halves;
  asm volatile("{.reg .b128 v; ld.acquire.sys.global.b128 v, [%2]; mov.b128 {%0, %1}, v;}"
               : "=l"(halves.x), "=l"(halves.y)
               : "l"(from)
               : "memory");
  return reinterpret_cast<const T&>(halves);
}
// Values that another GPU may store meanwhile; each of the four is whole.
__device__ inline uint4 load_polled(const uint4* from) {
  uint4 value;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from)
               : "memory");
  return value;
}

// The number of rows of `source` in the heap at `base`, and the choices for its row `row`.
__device__ inline RowCount* row_count_of(const ExchangeView& exchange, uint8_t* base,
                                         uint64_t epoch, int32_t source) {
  return reinterpret_cast<RowCount*>(base + exchange.offsets.row_counts) +
         static_cast<int32_t>(epoch % 2) * exchange.num_instances + source;
}
__device__ inline ExpertChoice* choices_of(const ExchangeView& exchange, uint8_t* base,
                                           uint64_t epoch, int32_t source, int32_t row) {
  const int32_t first = static_cast<int32_t>(epoch % 2) * exchange.num_instances + source;
  return reinterpret_cast<ExpertChoice*>(base + exchange.offsets.choices) +
         (static_cast<int64_t>(first) * exchange.max_rows + row) * exchange.topk;
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
