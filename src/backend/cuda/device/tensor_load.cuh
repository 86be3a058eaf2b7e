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

// To the same place of both blocks of a cluster of two, whose barriers each count the bytes.
__device__ inline void load_box_for_pair(uint32_t to, const CUtensorMap& map, int32_t x, int32_t y,
                                         int32_t z, uint32_t barrier, uint64_t policy) {
  constexpr uint16_t kBoth = 3;
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %7, %6;" ::"r"(to),
      "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "l"(policy), "h"(kBoth)
      : "memory");
}

// Arrives at the barrier at the same place of a block of the cluster.
__device__ inline void arrive_at(uint32_t barrier, uint32_t block) {
  asm volatile(
      "{\n"
      ".reg .b32 there;\n"
      "mapa.shared::cluster.u32 there, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [there];\n"
      "}\n" ::"r"(barrier),
      "r"(block)
      : "memory");
}

// All threads of the cluster's blocks that have not ended.
__device__ inline void sync_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release;\n"
      "barrier.cluster.wait.acquire;\n" ::
          : "memory");
}

// Makes writes that this thread has seen, of any kind, visible to copies that it asks for.
__device__ inline void publish_to_copies() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

}  // namespace nanocp::cuda::device
