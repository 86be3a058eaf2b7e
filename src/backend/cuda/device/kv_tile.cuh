// Sixteen tokens of one KV head in shared memory, as tensor-core operands: a warp's share of a tile
// of decode attention. Rows are tokens; 16-byte chunks of a row are permuted so that matrix loads
// meet no bank conflicts. e4m3 codes become bf16 on the way from shared memory to registers.
#pragma once

#include "backend/cuda/attention_decode.h"
#include "backend/cuda/device/e4m3.cuh"
#include "backend/cuda/device/mma.cuh"

namespace nanocp::cuda::device {

// Queries (times 2^100) against codes (times 2^-120) leave a factor 2^-20, likewise weights against
// values. Queries and weights below 2^27 stay within bf16.
constexpr float kCodeFactor = 0x1p100F;
constexpr float kCodeRest = 0x1p20F;

template <int kDim, CacheType kType>
struct KvTile {
  static constexpr int kTokens = 16;
  static constexpr bool kIsE4m3 = kType == CacheType::kE4m3;
  static constexpr int kValueBytes = kIsE4m3 ? 1 : 2;
  static constexpr int kRowBytes = kDim * kValueBytes;
  static constexpr int kChunks = kRowBytes / 16;
  static constexpr int kBytes = kTokens * kRowBytes;

  __device__ static uint32_t chunk_offset(int row, int chunk) {
    const int permuted = kChunks >= 8 ? chunk ^ (row & 7) : chunk ^ ((row >> 1) & 3);
    return static_cast<uint32_t>(row * kRowBytes + permuted * 16);
  }

  // Keys as the left operands [tokens x 16 values] of steps 2 * pair and 2 * pair + 1. Which values
  // a column stands for: see load_queries.
  __device__ static void load_keys(uint32_t tile, int pair, uint32_t (&even)[4],
                                   uint32_t (&odd)[4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kIsE4m3) {
      uint32_t codes[4];
      load_matrices(codes, tile + chunk_offset(lane % 16, 2 * pair + lane / 16));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        even[half] = even_codes(codes[half]);
        even[2 + half] = odd_codes(codes[half]);
        odd[half] = even_codes(codes[2 + half]);
        odd[2 + half] = odd_codes(codes[2 + half]);
      }
    } else {
      load_matrices(even, tile + chunk_offset(lane % 16, 4 * pair + lane / 16));
      load_matrices(odd, tile + chunk_offset(lane % 16, 4 * pair + 2 + lane / 16));
    }
  }

  // A query head as the right operand of a step: the head of lane / 4, or zeros if it is null.
  // e4m3: columns 2c, 2c + 1, 2c + 8, 2c + 9 of a step stand for values 4c, 4c + 2, 4c + 1, 4c + 3,
  // as the bytes of a word come out; bf16: for themselves.
  __device__ static void load_query(const __nv_bfloat16* head, int step, uint32_t (&out)[2]) {
    const int c = static_cast<int>(threadIdx.x) % 4;
    out[0] = out[1] = 0;
    if (head == nullptr) return;
    if constexpr (kIsE4m3) {
      const uint2 pairs = *reinterpret_cast<const uint2*>(head + step * 16 + 4 * c);
      out[0] = times_code_factor(__byte_perm(pairs.x, pairs.y, 0x5410));
      out[1] = times_code_factor(__byte_perm(pairs.x, pairs.y, 0x7632));
    } else {
      out[0] = *reinterpret_cast<const uint32_t*>(head + step * 16 + 2 * c);
      out[1] = *reinterpret_cast<const uint32_t*>(head + step * 16 + 8 + 2 * c);
    }
  }

  // Values, transposed, as the left operands [16 values x tokens] of columns [16 * n, + 16) and the
  // 16 after them. Row r of an operand stands for the value value_of_row.
  __device__ static void load_values(uint32_t tile, int n, uint32_t (&first)[4],
                                     uint32_t (&second)[4]) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    if constexpr (kIsE4m3) {
      uint32_t codes[4];
      load_matrices_transposed(codes, tile + chunk_offset(lane % 16, n + lane / 16));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        first[2 * half] = even_codes(codes[half]);
        first[2 * half + 1] = odd_codes(codes[half]);
        second[2 * half] = even_codes(codes[2 + half]);
        second[2 * half + 1] = odd_codes(codes[2 + half]);
      }
    } else {
      const int row = lane % 8 + lane / 16 * 8;
      const int chunk = 2 * n + lane / 8 % 2;
      load_matrices_transposed(first, tile + chunk_offset(row, chunk));
      load_matrices_transposed(second, tile + chunk_offset(row, chunk + 2));
    }
  }

  // Of the rows lane / 4 (half 0) and lane / 4 + 8 (half 1) of an operand of load_values.
  __device__ static int value_of_row(int n, int half) {
    const int row = static_cast<int>(threadIdx.x) % 32 / 4;
    return n * 16 + (kIsE4m3 ? 2 * row + half : row + 8 * half);
  }

 private:
  __device__ static uint32_t times_code_factor(uint32_t pair) {
    const auto values = *reinterpret_cast<const __nv_bfloat162*>(&pair);
    const __nv_bfloat162 product = __hmul2(values, __float2bfloat162_rn(kCodeFactor));
    return *reinterpret_cast<const uint32_t*>(&product);
  }
};

}  // namespace nanocp::cuda::device
