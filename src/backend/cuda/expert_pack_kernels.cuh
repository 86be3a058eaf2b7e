// Device code of expert_mlp.cu that brings plain matrices into the order of
// expert_weight_formats.cuh. A thread makes one lane's bytes of one pair.
#pragma once

#include "backend/cuda/expert_weight_formats.cuh"

namespace nanocp::cuda {
namespace {

constexpr int kPackThreads = 256;

struct PackParams {
  tensor::WeightView first;   // [rows, depth]
  tensor::WeightView second;  // alternates with `first` in groups of 8 rows, if there are groups
  bool alternates;
  uint8_t* packed;
  int32_t row_tiles;
  int32_t depth_pairs;
};

// The matrix and row that row `row` of a row tile is.
struct PackRow {
  const tensor::WeightView* matrix;
  int64_t row;
};

__device__ inline PackRow pack_row(const PackParams& p, int32_t row_tile, int32_t row) {
  if (!p.alternates) return {&p.first, int64_t{row_tile} * 16 + row};
  return {row < 8 ? &p.first : &p.second, int64_t{row_tile} * 8 + row % 8};
}

// Byte `index` of a row.
__device__ inline uint32_t row_byte(const PackRow& at, int64_t index) {
  return static_cast<const uint8_t*>(at.matrix->data)[at.row * at.matrix->stride_bytes + index];
}

__device__ inline void pack_bf16(const PackParams& p, int32_t row_tile, int32_t pair, int lane,
                                 uint8_t* to) {
  for (int operand = 0; operand < 2; ++operand) {
    uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
      const PackRow at = pack_row(p, row_tile, lane / 4 + i % 2 * 8);
      const int64_t byte = 2 * (int64_t{pair} * 32 + operand * 16 + i / 2 * 8 + lane % 4 * 2);
      words[i] = *reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(at.matrix->data) +
                                                    at.row * at.matrix->stride_bytes + byte);
    }
    reinterpret_cast<uint4*>(to + operand * kOperandBytes)[lane] =
        make_uint4(words[0], words[1], words[2], words[3]);
  }
}

__device__ inline float fp8_scale(const PackRow& at, int32_t pair) {
  const tensor::WeightView& w = *at.matrix;
  return w.scales[(at.row + w.scale_row_offset) / w.block_rows * w.scale_stride +
                  int64_t{pair} * 32 / w.block_cols];
}

__device__ inline void pack_fp8(const PackParams& p, int32_t row_tile, int32_t pair, int lane,
                                uint8_t* to) {
  uint32_t words[4];
  for (int i = 0; i < 4; ++i) {
    const PackRow at = pack_row(p, row_tile, lane / 4 + i % 2 * 8);
    const int64_t col = int64_t{pair} * 32 + i / 2 * 8 + lane % 4 * 2;
    words[i] = row_byte(at, col) | row_byte(at, col + 16) << 8 | row_byte(at, col + 1) << 16 |
               row_byte(at, col + 17) << 24;
  }
  reinterpret_cast<uint4*>(to)[lane] = make_uint4(words[0], words[1], words[2], words[3]);
  if (lane != 0) return;
  *reinterpret_cast<float4*>(to + kFp8ScalesAt) =
      make_float4(fp8_scale(pack_row(p, row_tile, 0), pair),
                  fp8_scale(pack_row(p, row_tile, 8), pair), 0.0F, 0.0F);
}

__device__ inline void pack_mxfp4(const PackParams& p, int32_t row_tile, int32_t pair, int lane,
                                  uint8_t* to) {
  uint32_t words[2] = {};
  for (int operand = 0; operand < 2; ++operand) {
    for (int i = 0; i < 4; ++i) {
      const PackRow at = pack_row(p, row_tile, lane / 4 + i % 2 * 8);
      const int64_t col = int64_t{pair} * 32 + operand * 16 + i / 2 * 8 + lane % 4 * 2;
      const uint32_t both = row_byte(at, col / 2);
      words[operand] |= (both & 15U) << (4 * i) | both >> 4 << (16 + 4 * i);
    }
  }
  reinterpret_cast<uint2*>(to)[lane] = make_uint2(words[0], words[1]);
  if (lane >= 16) return;
  const PackRow at = pack_row(p, row_tile, lane);
  to[kMxfp4ScalesAt + lane] =
      at.matrix->group_scales[at.row * at.matrix->group_scale_stride + pair];
}

__global__ void pack_kernel(const __grid_constant__ PackParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
  const int64_t unit = i / 32;
  if (unit >= static_cast<int64_t>(p.row_tiles) * p.depth_pairs) return;
  const auto lane = static_cast<int>(i % 32);
  const auto pair = static_cast<int32_t>(unit % p.depth_pairs);
  const auto row_tile = static_cast<int32_t>(unit / p.depth_pairs);
  uint8_t* to = p.packed + unit * pair_bytes(p.first.format);
  if (p.first.format == WeightFormat::kFp8Block) {
    pack_fp8(p, row_tile, pair, lane, to);
  } else if (p.first.format == WeightFormat::kMxfp4) {
    pack_mxfp4(p, row_tile, pair, lane, to);
  } else {
    pack_bf16(p, row_tile, pair, lane, to);
  }
}

}  // namespace
}  // namespace nanocp::cuda
