// Copies of boxes of a tensor to shared memory by the copy engine of an SM; what lies outside the
// tensor arrives as zeros and counts as bytes. See bulk_load.cuh for the barriers. sm_90 and newer.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace nanocp::cuda::device {

__device__ inline void prefetch_tensor_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// The box at column x of row y of matrix z. `map` is a kernel parameter; `barrier` counts the
// bytes.
__device__ inline void load_box(uint32_t to, const CUtensorMap& map, int32_t x, int32_t y,
                                int32_t z, uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy)
      : "memory");
}

// The same of a tensor of five dimensions, adjacent values first.
struct BoxPlace {
  int32_t at[5];
};
__device__ inline void load_box_5(uint32_t to, const CUtensorMap& map, const BoxPlace& place,
                                  uint32_t barrier, uint64_t policy) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(place.at[0]), "r"(place.at[1]), "r"(place.at[2]),
      "r"(place.at[3]), "r"(place.at[4]), "l"(policy)
      : "memory");
}

// Makes writes that this thread has seen, of any kind, visible to copies that it asks for.
__device__ inline void publish_to_copies() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

}  // namespace nanocp::cuda::device
