// Products of a warpgroup whose left factor is in registers, which spares the reads of it from
// shared memory: the other forms, and the order of calls, are in warpgroup_mma.cuh. Thread t of
// warp w holds of a left factor of 64 rows and depth 16: a[0] row 16 w + t / 4, columns 2 (t % 4)
// and the next; a[1] 8 rows below; a[2] and a[3] 8 columns on. Neither is touched before
// wait_products.
#pragma once

#include <cstdint>

namespace nanocp::cuda::device {

// Operands of an asm statement: runs of an accumulator.
#define NANOCP_ACC_8(c, i)                                                                        \
  "+f"((c)[(i)]), "+f"((c)[(i) + 1]), "+f"((c)[(i) + 2]), "+f"((c)[(i) + 3]), "+f"((c)[(i) + 4]), \
      "+f"((c)[(i) + 5]), "+f"((c)[(i) + 6]), "+f"((c)[(i) + 7])
#define NANOCP_ACC_32(c, i) \
  NANOCP_ACC_8(c, i), NANOCP_ACC_8(c, (i) + 8), NANOCP_ACC_8(c, (i) + 16), NANOCP_ACC_8(c, (i) + 24)
#define NANOCP_ACC_128(c) \
  NANOCP_ACC_32(c, 0), NANOCP_ACC_32(c, 32), NANOCP_ACC_32(c, 64), NANOCP_ACC_32(c, 96)

// Keeps the compiler from giving away the registers of a left factor before this point.
__device__ __forceinline__ void pin(uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) asm volatile("" : "+r"(a[i])::"memory");
}

// c += A[64 x 16] B[16 x 256], B's depth along the rows of its four chunks.
__device__ __forceinline__ void multiply_depth_256(float (&c)[128], const uint32_t (&a)[4],
                                                   uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, "
      "%127}, "
      "{%128, %129, %130, %131}, %132, 1, 1, 1, 1;\n"
      : NANOCP_ACC_128(c)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}

#undef NANOCP_ACC_8
#undef NANOCP_ACC_32
#undef NANOCP_ACC_128

}  // namespace nanocp::cuda::device
