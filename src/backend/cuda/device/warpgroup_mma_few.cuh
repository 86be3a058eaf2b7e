// Tensor-core products of a warpgroup with few columns; see warpgroup_mma.cuh.
#pragma once

#include "backend/cuda/device/warpgroup_mma.cuh"

namespace nanocp::cuda::device {

// c (+)= A[64 x 16] B[16 x kColumns]; B's depth along the columns of its chunk, A's too or, with
// kDepthRows, along the rows.
template <int kColumns, bool kDepthRows>
__device__ __forceinline__ void multiply_few(float (&c)[kColumns / 2], uint64_t a, uint64_t b,
                                             bool accumulate) {
  static_assert(kColumns == 16 || kColumns == 32);
  if constexpr (kColumns == 16) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %10, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, p, 1, 1, %11, 0;\n"
        "}\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
          "+f"(c[7])
        : "l"(a), "l"(b), "r"(accumulate ? 1 : 0), "n"(kDepthRows ? 1 : 0));
  } else {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %18, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
        "%16, %17, p, 1, 1, %19, 0;\n"
        "}\n"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]), "+f"(c[4]), "+f"(c[5]), "+f"(c[6]),
          "+f"(c[7]), "+f"(c[8]), "+f"(c[9]), "+f"(c[10]), "+f"(c[11]), "+f"(c[12]), "+f"(c[13]),
          "+f"(c[14]), "+f"(c[15])
        : "l"(a), "l"(b), "r"(accumulate ? 1 : 0), "n"(kDepthRows ? 1 : 0));
  }
}

// Four 8x8 bf16 matrices, each transposed; lane i names the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void store_matrices_transposed(uint32_t address, uint32_t m0,
                                                          uint32_t m1, uint32_t m2, uint32_t m3) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
      "r"(m0), "r"(m1), "r"(m2), "r"(m3)
      : "memory");
}

}  // namespace nanocp::cuda::device
