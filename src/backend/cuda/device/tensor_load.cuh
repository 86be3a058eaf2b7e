// Copies of boxes of a matrix from global to shared memory by the copy engine of an SM, described
// by a tensor map (backend/cuda/tensor_map.h), for one block or for both blocks of a cluster of
// two; and what such blocks need of one another. Barriers: bulk_load.cuh. sm_90 and newer.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace nanocp::cuda::device {

__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// The box whose first value is at (row, column), to `to` in this block. The barrier's phase counts
// the bytes; what lies outside the matrix is zero.
__device__ inline void copy_box(uint32_t to, const CUtensorMap* map, int32_t row, int32_t column,
                                uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier)
      : "memory");
}

// The same to the same offset in all blocks of the cluster that `blocks` has the bit of, and to
// their barriers at the offset of `barrier`.
__device__ inline void copy_box_to_blocks(uint32_t to, const CUtensorMap* map, int32_t row,
                                          int32_t column, uint32_t barrier, uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(barrier), "h"(blocks)
      : "memory");
}

__device__ inline uint32_t block_rank_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Arrives at the barrier at this address in block `rank` of the cluster.
__device__ inline void arrive_at_block(uint32_t barrier, uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 remote;\n"
      "mapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [remote];\n"
      "}\n" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

// All threads of all blocks of the cluster.
__device__ inline void synchronise_cluster() {
  asm volatile(
      "barrier.cluster.arrive.release.aligned;\n"
      "barrier.cluster.wait.acquire.aligned;" ::
          : "memory");
}

}  // namespace nanocp::cuda::device
