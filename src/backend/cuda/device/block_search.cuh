// Where positions of a sequence lie in a shard's block table.
#pragma once

#include <cstdint>

namespace nanocp::cuda::device {

// First of `count` blocks whose place in the sequence is >= place; `count` where none is.
// `block_idx` rises.
__device__ inline int32_t find_block(const int32_t* block_idx, int32_t count, int32_t place) {
  int32_t low = 0;
  int32_t high = count;
  while (low < high) {
    const int32_t middle = (low + high) / 2;
    if (block_idx[middle] < place) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

}  // namespace nanocp::cuda::device
