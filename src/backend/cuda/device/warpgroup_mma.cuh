// Products of a warpgroup (128 threads) on the tensor cores: asynchronous, 64 rows, operands in
// shared memory in tiles of 64 bf16 values (128 bytes) a row with the 128-byte swizzle, as tensor
// copies write them. sm_90a.
//
// Order of a product: fence_products, then products into one accumulator, commit_products; its
// registers, and those of a left operand, are not touched before wait_products. What threads wrote
// to shared memory becomes readable for products by fence_shared_writes and a barrier.
#pragma once

#include <cstdint>

namespace nanocp::cuda::device {

constexpr int kSwizzleRowBytes = 128;
constexpr int kSwizzleGroupBytes = 8 * kSwizzleRowBytes;  // the pattern repeats; tiles align to it

// The byte offset of 16-byte piece `chunk` of a row of a swizzled tile.
__device__ inline uint32_t swizzled_offset(int row, int chunk) {
  return static_cast<uint32_t>(row * kSwizzleRowBytes + ((chunk ^ (row & 7)) * 16));
}

// Operand whose depth lies along the 128-byte rows: rows of a left operand, columns of a right one
// given by their rows. The next 16 of depth are 32 bytes on.
__device__ inline uint64_t depth_major_operand(uint32_t address) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kGroupStride = uint64_t{kSwizzleGroupBytes >> 4} << 32;
  constexpr uint64_t kUnused = uint64_t{1} << 16;
  return kSwizzle128 | kGroupStride | kUnused | ((address & 0x3ffffU) >> 4);
}

// Right operand whose columns lie along the 128-byte rows, 64 of them a tile, tiles tile_bytes
// apart. The next 16 of depth are 2,048 bytes on.
__device__ inline uint64_t column_major_operand(uint32_t address, uint32_t tile_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kGroupStride = uint64_t{kSwizzleGroupBytes >> 4} << 32;
  return kSwizzle128 | kGroupStride | (uint64_t{tile_bytes >> 4} << 16) |
         ((address & 0x3ffffU) >> 4);
}

__device__ inline void fence_products() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void commit_products() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending committed groups are still under way.
template <int kPending>
__device__ inline void wait_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// Earlier writes of this thread to shared memory come before products that follow a barrier.
__device__ inline void fence_shared_writes() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Registers per thread of this warpgroup from here on, a multiple of 8; all its warps call it. What
// the warpgroups of a block have together stays within what the kernel was launched with.
template <int kCount>
__device__ inline void lower_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ inline void raise_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

// Keeps the compiler from moving accesses to an accumulator across this point.
template <int kCount>
__device__ __forceinline__ void pin(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

// Operands of an asm statement: runs of an accumulator.
#define NANOCP_ACC_8(c, i)                                                                        \
  "+f"((c)[(i)]), "+f"((c)[(i) + 1]), "+f"((c)[(i) + 2]), "+f"((c)[(i) + 3]), "+f"((c)[(i) + 4]), \
      "+f"((c)[(i) + 5]), "+f"((c)[(i) + 6]), "+f"((c)[(i) + 7])
#define NANOCP_ACC_32(c, i) \
  NANOCP_ACC_8(c, i), NANOCP_ACC_8(c, (i) + 8), NANOCP_ACC_8(c, (i) + 16), NANOCP_ACC_8(c, (i) + 24)
#define NANOCP_ACC_128(c) \
  NANOCP_ACC_32(c, 0), NANOCP_ACC_32(c, 32), NANOCP_ACC_32(c, 64), NANOCP_ACC_32(c, 96)

// Of accumulators c[64 x N] thread t holds, for each group of 8 columns, the four values at rows
// 16 * (t / 32) + t % 32 / 4 and 8 below it, columns t % 4 * 2 and the next: c[4 * group + 2 * half
// + column].

// c[64 x 64] = a[64 x 16] b[16 x 64] + (accumulate ? c : 0), both depth-major.
__device__ __forceinline__ void multiply_64(float (&c)[32], uint64_t a, uint64_t b,
                                            bool accumulate) {
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, p, 1, 1, 0, 0;\n"
      "}\n"
      : NANOCP_ACC_32(c, 0)
      : "l"(a), "l"(b), "r"(accumulate ? 1 : 0));
}

// c[64 x 256] += a[64 x 16] b[16 x 256]: a depth-major, b column-major.
__device__ __forceinline__ void multiply_add_256(float (&c)[128], uint64_t a, uint64_t b) {
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
      "%128, %129, 1, 1, 1, 0, 1;\n"
      : NANOCP_ACC_128(c)
      : "l"(a), "l"(b));
}

// The same with a in registers, as the accumulator of columns 16 * k and up of a product, rounded:
// a[2 * group + half] packs two adjacent columns of group 0 or 1.
__device__ __forceinline__ void multiply_add_256(float (&c)[128], const uint32_t (&a)[4],
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
